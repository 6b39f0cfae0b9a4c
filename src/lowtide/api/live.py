"""What adds to the contract, under `/lowtide/…`: progress, events and results of batches that run, and the workers.

Nothing here changes anything. Invariant workspace-walls: another workspace's batch answers exactly as an unknown one.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lowtide.api import downloads
from lowtide.api.batches import find
from lowtide.api.call import Call, until_gone
from lowtide.api.downloads import MEDIA_TYPE, Download
from lowtide.api.live_wire import BatchProgress, worker_list
from lowtide.api.watch import Seen
from lowtide.api.wire import json_response
from lowtide.domain.errors import ContractError, ErrorType, InvalidRequest, NotFound
from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Batch

NEXT = "x-lowtide-next"
"""Where results go on that are not complete: the `after` of the next call."""
_POSITION = re.compile(r"[0-9]{1,18}", re.ASCII)
_EVENTS_HEAD = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
_RETRY_MS = 2000


async def progress(call: Call) -> Response:
    """`GET /lowtide/batches/{batch_id}`: how far it is, how fast, and why it stands still if it does."""
    return json_response(await _look(call))


async def workers(call: Call) -> Response:
    """`GET /lowtide/workers`: the workers that live, with their upstreams as they see them."""
    return json_response(worker_list(await call.services.live.store.workers()))


async def events(call: Call) -> "Response | EventStream":
    """`GET /lowtide/batches/{batch_id}/events`: server-sent events, `progress` when it changes, `ended` at the end.

    A client that comes again with the `Last-Event-ID` of the end is answered 204, which tells it not to.
    """
    now = Seen.of(await _look(call))
    last = call.request.headers.get("last-event-id")
    if now.ended and now.mark == last:
        return Response(status_code=204)
    if call.request.method == "HEAD":
        return Response(headers=_EVENTS_HEAD)
    return EventStream(call.services.live.follow(call.caller.workspace, call.batch_id), last)


async def results(call: Call) -> "Response | Download":
    """`GET /lowtide/batches/{batch_id}/results`: what there is so far; `after` is how many bytes the client has.

    While the batch runs `x-lowtide-next` says where to go on; without it this is the rest of the whole file, which is
    the one that `/v1/messages/batches/{batch_id}/results` serves.
    """
    batch = await find(call)
    given = call.request.query_params.get("after")
    after = _position(given)
    match batch.state:
        case BatchState.IN_PROGRESS | BatchState.CANCELING:
            return await _so_far(call, batch, after)
        case BatchState.ENDED:
            return await (downloads.results(call) if given is None else _rest(call, batch, after))
        case BatchState.ARCHIVED | BatchState.DELETED:
            raise NotFound(f"Message Batch {batch.id} has no available results.")


async def _look(call: Call) -> BatchProgress:
    await find(call)
    found = await call.services.live.look(call.caller.workspace, call.batch_id)
    if found is None:
        raise NotFound(f"Message Batch {call.batch_id} not found.")
    return found


async def _so_far(call: Call, batch: Batch, after: int) -> Response | Download:
    portion = await call.services.results.so_far(batch, after)
    if portion is None:
        raise _beyond(after)
    headers = {"content-type": MEDIA_TYPE, "content-length": str(portion.length), NEXT: str(portion.end)}
    if portion.length == 0 or call.request.method == "HEAD":
        return Response(headers=headers)
    return Download(call, batch, portion.stream(), 200, headers)


async def _rest(call: Call, batch: Batch, after: int) -> Response | Download:
    file = await call.services.results.open(batch)
    size = await file.size()
    if after > size:
        raise _beyond(after)
    headers = {"content-type": MEDIA_TYPE, "content-length": str(size - after), "etag": file.etag}
    if after == size or call.request.method == "HEAD":
        return Response(headers=headers)
    return Download(call, batch, file.stream(after, size), 200, headers)


def _position(text: str | None) -> int:
    if text is None:
        return 0
    if not _POSITION.fullmatch(text):
        raise InvalidRequest("after: Input should be a number of bytes")
    return int(text)


def _beyond(after: int) -> ContractError:
    return ContractError(416, ErrorType.INVALID_REQUEST, f"after: there are fewer than {after} bytes of results")


@dataclass(frozen=True, slots=True)
class EventStream:
    """An ASGI response of server-sent events, for as long as the client is there. `last` is what it saw before."""

    seen: AsyncGenerator[Seen | None, None]
    last: str | None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        raw = [(name.encode(), value.encode()) for name, value in _EVENTS_HEAD.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"retry: %d\n\n" % _RETRY_MS, "more_body": True})
        async with aclosing(self.seen) as looks:
            async for each in looks:
                if each is None or each.ended or each.mark != self.last:
                    await send({"type": "http.response.body", "body": event(each), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(seen: Seen | None) -> bytes:
    """Return what was seen as an event; a comment when nothing was."""
    if seen is None:
        return b": nothing new\n\n"
    name = b"ended" if seen.ended else b"progress"
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (seen.mark.encode(), name, seen.data)
