"""Interactive calls, answered by the upstreams: `POST /v1/messages` and `/v1/messages/count_tokens`.

The body goes on as the client wrote it, but for an aliased model; the reply comes back as the upstream wrote it, as it
comes, but for the request id, which is ours. A client's credential never goes on. When the client leaves, the call to
the upstream is given up.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from starlette.types import Message, Receive, Scope, Send

from lowtide.api.batches import kept_headers
from lowtide.api.bodies import read_body
from lowtide.api.call import Call, until_gone
from lowtide.domain.errors import ContractError, ErrorType, InvalidRequest, NotFound, Overloaded
from lowtide.domain.splice import NoSuchMember, NotAnObject, replace_member, top_level
from lowtide.ports.upstream import ReplyStream, Upstream, UpstreamError, UpstreamTimeout, UpstreamUnreachable

REPLY_TIMEOUT_S = 600.0
_ERROR_BYTES_MAX = 1024 * 1024
_PASSED = frozenset({"content-type", "content-encoding", "retry-after", "retry-after-ms", "x-should-retry"})
_PASSED_PREFIX = "anthropic-ratelimit-"
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_decode_text = msgspec.json.Decoder(str).decode


async def send_message(call: Call) -> "Forwarded":
    """`POST /v1/messages`, streamed or not: the upstream decides by the body."""
    return await _forward(call, "/v1/messages")


async def count_tokens(call: Call) -> "Forwarded":
    """`POST /v1/messages/count_tokens`."""
    return await _forward(call, "/v1/messages/count_tokens")


async def _forward(call: Call, path: str) -> "Forwarded":
    body = await read_body(call.request, call.services.limits.message_bytes_max)
    model = read_model(body)
    call.caller.require_model(model)
    upstreams = [upstream for upstream in call.services.upstreams if upstream.serves(model)]
    if not upstreams:
        raise NotFound(f"model: {model}")
    return Forwarded(call.id, path, body, model, upstreams, kept_headers(call.request))


def read_model(body: bytes) -> str:
    """Return the model that a Messages body names; raises InvalidRequest in the contract's pattern."""
    try:
        members = top_level(body)
    except NotAnObject as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    if "model" not in members:
        raise InvalidRequest("model: Field required")
    try:
        model = _decode_text(members["model"])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("model: Input should be a valid string") from error
    if not model:
        raise InvalidRequest("model: String should have at least 1 character")
    return model


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An ASGI response that calls the upstream and sends on what it answers."""

    request_id: str
    path: str
    body: bytes
    model: str
    upstreams: Sequence[Upstream]
    headers: dict[str, str]

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        try:
            reply = await self._open()
            try:
                if reply.status < 400:
                    await _send_on(reply, send)
                else:
                    await _send_error(reply, self.request_id, send)
            finally:
                await reply.close()
        except UpstreamError as error:
            raise told(error) from error
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _open(self) -> ReplyStream:
        """Call the upstreams that serve the model in turn, until one takes the connection: then it may have run."""
        for upstream in self.upstreams[:-1]:
            try:
                return await self._open_at(upstream)
            except UpstreamUnreachable:
                continue
        return await self._open_at(self.upstreams[-1])

    async def _open_at(self, upstream: Upstream) -> ReplyStream:
        try:
            body = upstream.prepare(self.body, self.model)
        except NoSuchMember as error:
            raise InvalidRequest("model: this key must be written without escapes") from error
        return await upstream.open(self.path, body, self.headers, REPLY_TIMEOUT_S)


def told(error: UpstreamError) -> ContractError:
    """Return what a client is told of a call that brought no whole reply."""
    match error:
        case UpstreamUnreachable():
            return Overloaded("The model server cannot be reached")
        case UpstreamTimeout():
            return ContractError(504, ErrorType.TIMEOUT, "The model server did not answer in time")
        case _:
            return ContractError(500, ErrorType.API, "The model server broke off its reply")


def rename(body: bytes, request_id: str) -> bytes:
    """Return an upstream's error with our request id in the place of its own, where its envelope has one."""
    try:
        return replace_member(body, "request_id", b'"%b"' % request_id.encode())
    except (NotAnObject, NoSuchMember):
        return body


async def _send_on(reply: ReplyStream, send: Send) -> None:
    """Send a reply as it comes; what a slow client does not take is not read."""
    await send(_head(reply))
    async for piece in reply.pieces():
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _send_error(reply: ReplyStream, request_id: str, send: Send) -> None:
    body = bytearray()
    async for piece in reply.pieces():
        body += piece
        if len(body) > _ERROR_BYTES_MAX:
            raise ContractError(500, ErrorType.API, "The model server answered with too large an error")
    await send(_head(reply))
    await send({"type": "http.response.body", "body": rename(bytes(body), request_id), "more_body": True})


def _head(reply: ReplyStream) -> Message:
    if not 200 <= reply.status <= 599:
        raise ContractError(500, ErrorType.API, "The model server answered with a status that is none")
    passed = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in reply.headers.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIX)) and _VALUE.fullmatch(value)
    ]
    return {"type": "http.response.start", "status": reply.status, "headers": passed}
