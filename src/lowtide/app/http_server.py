"""The HTTP server of the API process: uvicorn, with what it leaves open closed.

uvicorn bounds neither the head of a request nor the time it may take to come, and answers what it cannot parse in plain
text; clients of the contract get its error envelope, with a request id, for that too. Bodies are `intake`'s matter:
they are read as fast as they are spooled and no faster.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lowtide.api.envelope import error_body
from lowtide.app.settings import HttpSettings
from lowtide.domain.errors import ErrorType
from lowtide.domain.ids import CALL, new_id

HEAD_BYTES_MAX = 64 * 1024
HEAD_S = 30.0
"""How long a connection may take to bring a request's head."""

_STATUS = {400: b"HTTP/1.1 400 Bad Request\r\n", 431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n"}
_log = structlog.get_logger()


class Protocol(HttpToolsProtocol):
    """One connection. Its head phase lasts from its first byte, or the last request's end, to the end of a head."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head before it is parsed; a body's bytes are not counted here."""
        if self._in_head:
            self._head_bytes += len(data)
            self._start_timer()
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(431, "Request headers exceed the maximum size")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request in the contract's envelope."""
        self._refuse(400, msg)

    def _refuse(self, status: int, text: str) -> None:
        request_id = new_id(CALL)
        body = error_body(ErrorType.INVALID_REQUEST, text, request_id)
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nrequest-id: %s\r\nx-should-retry: false\r\n"
            b"connection: close\r\n\r\n"
        ) % (len(body), request_id.encode())
        self.transport.write(_STATUS[status] + head + body)
        self.transport.close()

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: `app.lifecycle` has the process's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def server(app: ASGIApp, settings: HttpSettings, *, grace_s: int) -> Server:
    """Return a server for an inherited socket; what runs when it stops has `grace_s` to finish."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=grace_s,
    )
    return Server(config)
