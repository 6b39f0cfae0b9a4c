"""The outermost layer: request ids, the headers that every response carries, and errors in the contract's envelope.

Whatever happens inside, a client sees the contract: `{"type":"error","error":{...},"request_id":"req_..."}`. An error
that is not the client's is logged here with its stack, and without its message, which might quote content. Once a
response has begun an error can no longer be told: the connection is closed before its end, so that no client takes
a short body for a whole one.
"""

import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide.domain.errors import ContractError, InternalError, Overloaded, StoreFull, StoreUnavailable
from lowtide.domain.ids import CALL, ORGANIZATION, new_id
from lowtide.ports.access import Taken

JSON = "application/json"
_NO_RETRY = frozenset({400, 401, 402, 403, 404, 405, 413, 416, 422})
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger()


class _Error(msgspec.Struct, frozen=True):
    type: str
    message: str


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    error: _Error
    request_id: str


def error_body(error_type: str, message: str, request_id: str) -> bytes:
    """Return the contract's error envelope."""
    return _encode(_Envelope("error", _Error(error_type, message), request_id))


def error_response(error: ContractError, request_id: str) -> Response:
    """Return the response that tells a client of `error`."""
    body = error_body(error.error_type, error.message, request_id)
    return Response(body, error.status, headers=error.headers, media_type=JSON)


def contract_error(error: Exception) -> ContractError:
    """Return what a client is told of `error`: nothing of ours but that we cannot, now or at all."""
    match error:
        case ContractError():
            return error
        case StoreUnavailable() | StoreFull():
            return Overloaded()
        case _:
            return InternalError()


class Envelope:
    """ASGI middleware that stamps every response and turns every error into one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        stamp = _Stamp(send, state)
        state["request_id"] = stamp.request_id
        try:
            await self._app(scope, receive, stamp)
        except ClientDisconnect:
            _log.debug("call.abandoned", request_id=stamp.request_id)
        except Exception as error:  # noqa: BLE001 the outermost handler: nothing may pass it
            told = contract_error(error)
            _record(error, told, stamp)
            if not stamp.started:
                await error_response(told, stamp.request_id)(scope, receive, stamp)


class _Stamp:
    """A `send` that adds to the head of a response what every response carries.

    The door leaves in `state` whose `workspace` it is, and how its budget of `calls` stands, once it knows.
    """

    def __init__(self, send: Send, state: Mapping[str, Any]) -> None:
        self._send = send
        self._state = state
        self.request_id = new_id(CALL)
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": [*message.get("headers", ()), *self._headers(message)]}
        await self._send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        status = message["status"]
        added = [(b"request-id", self.request_id.encode())]
        if status != 401:  # whoever is unknown learns nothing of whom it called
            added.append((b"anthropic-organization-id", ORGANIZATION.encode()))
            if "workspace" in self._state:
                added.append((b"anthropic-workspace-id", self._state["workspace"].encode()))
        if "calls" in self._state:
            added += _rate_limit(self._state["calls"])
        if status in _NO_RETRY:
            added.append((b"x-should-retry", b"false"))
        present = {name for name, _ in message.get("headers", ())}
        return [(name, value) for name, value in added if name not in present]


def _rate_limit(calls: Taken) -> list[tuple[bytes, bytes]]:
    """Return the contract's headers on the budget of calls (`message-batches-api.md`, section 1.3)."""
    full = datetime.now(UTC) + timedelta(seconds=calls.full_s)
    values = {
        "limit": str(calls.limit),
        "remaining": str(calls.remaining),
        "reset": full.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return [(f"anthropic-ratelimit-requests-{name}".encode(), value.encode()) for name, value in values.items()]


def _record(error: Exception, told: ContractError, stamp: _Stamp) -> None:
    """Log what is not the client's doing: the kind of error and where it arose, never its text."""
    if stamp.started:
        event = "response.aborted"
    elif told.status < 500:
        return
    else:
        event = "call.failed"
    stack = "".join(traceback.format_tb(error.__traceback__))
    _log.error(event, request_id=stamp.request_id, status=told.status, error=type(error).__name__, stack=stack)
