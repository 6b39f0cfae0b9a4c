"""How uvicorn serves the doors, in one place, so that tests and the API process serve alike.

Forwarded headers are ours to judge (`address.py`), so uvicorn's own handling is off. What is not HTTP at all never
reaches the application: its refusal is written here, in the contract's envelope too.
"""

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lowtide.api.envelope import error_body
from lowtide.domain.errors import ErrorType
from lowtide.domain.ids import CALL, DEFAULT_WORKSPACE, ORGANIZATION, new_id


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 whose refusal of malformed requests keeps the contract."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, and close the connection."""
        request_id = new_id(CALL)
        body = error_body(ErrorType.INVALID_REQUEST, msg, request_id)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\nrequest-id: {request_id}\r\nx-should-retry: false\r\n"
            f"anthropic-organization-id: {ORGANIZATION}\r\nanthropic-workspace-id: {DEFAULT_WORKSPACE}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def server_config(app: ASGIApp, *, keep_alive_s: int = 75, grace_s: int = 10) -> Config:
    """Return how to serve `app`; the caller brings the listening socket. `grace_s` is what calls get at the stop."""
    return Config(
        app,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=grace_s,
    )
