"""The results of a batch as a download: whole, or a range of it, never short without the client noticing.

Source: `message-batches-api.md`, section 6; Range and ETag are ours. The first piece is read before the head is sent,
so that what fails at once is still told; a later fault ends the connection before the body's end. No status but 200,
206, 304, 404 and 416 is sent, whatever `Accept` says.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lowtide.api.batches import find
from lowtide.api.call import Call, until_gone
from lowtide.api.ranges import Span, is_known, read_range
from lowtide.domain.errors import ContractError, ErrorType, NotFound
from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Batch
from lowtide.results.reader import ResultsFile

MEDIA_TYPE = "application/x-jsonl"
_log = structlog.get_logger()


async def results(call: Call) -> "Response | Download":
    """`GET /v1/messages/batches/{batch_id}/results`: one line per request, once the batch has ended."""
    batch = await find(call)
    if batch.state is not BatchState.ENDED:
        raise NotFound(f"Message Batch {batch.id} has no available results.")
    file = await call.services.results.open(batch)
    headers = call.request.headers
    if is_known(headers.get("if-none-match"), file.etag):
        return Response(status_code=304, headers={"etag": file.etag})
    whole = _headers(batch, file)
    if call.request.method == "HEAD" or call.request.scope["http_version"] == "1.0":
        whole["content-length"] = str(await file.size())  # HTTP/1.0 has no chunks: only a length shows a short body
    if call.request.method == "HEAD":
        return Response(headers=whole)
    wanted = read_range(headers.get("range"), headers.get("if-range"), file.etag)
    if wanted is None:
        return Download(call, batch, file.stream(), 200, whole)
    size = await file.size()
    span = wanted.within(size)
    if span is None:
        raise _unsatisfiable(size)
    return Download(call, batch, file.stream(span.start, span.end), 206, _range_headers(batch, file, span, size))


@dataclass(frozen=True, slots=True)
class Download:
    """An ASGI response that sends pieces as they are read, for as long as the client is there."""

    call: Call
    batch: Batch
    pieces: AsyncGenerator[bytes, None]
    status: int
    headers: dict[str, str] = field(repr=False)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        raw = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        begun = False
        try:
            async with aclosing(self.pieces) as pieces:
                async for piece in pieces:
                    if not begun:
                        await send({"type": "http.response.start", "status": self.status, "headers": raw})
                        begun = True
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            _log.error("results.broke", batch=self.batch.id, request_id=self.call.id, error=type(error).__name__)
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _headers(batch: Batch, file: ResultsFile) -> dict[str, str]:
    return {
        "content-type": MEDIA_TYPE,
        "content-disposition": f"attachment; filename*=utf-8''{batch.id}_results.jsonl",
        "accept-ranges": "bytes",
        "etag": file.etag,
    }


def _range_headers(batch: Batch, file: ResultsFile, span: Span, size: int) -> dict[str, str]:
    return {
        **_headers(batch, file),
        "content-range": f"bytes {span.start}-{span.end - 1}/{size}",
        "content-length": str(span.end - span.start),
    }


def _unsatisfiable(size: int) -> ContractError:
    text = f"Range: the results have {size} bytes"
    return ContractError(416, ErrorType.INVALID_REQUEST, text, headers={"content-range": f"bytes */{size}"})
