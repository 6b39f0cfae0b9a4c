"""The server's side of a connection, with what ASGI does not offer: to reset it, and to learn at once that it is lost.

Uvicorn's own protocol, found by handlers as `scope["extensions"][CONNECTION]`. One call at a time is in its handler, so
one callback is enough.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION: Final = "lowtide.connection"
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection that can misbehave."""

    lost = False
    on_lost: Callable[[], None] | None = None
    """Called once when the connection is lost; the handler that set it takes it away again."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]  # ours, not ASGI's

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        if self.on_lost is not None:
            self.on_lost()

    def reset(self) -> None:
        """End the connection with a reset, dropping what was not sent."""
        bare = self.transport.get_extra_info("socket")
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def hang_up(self) -> None:
        """End the connection in order, after what was sent."""
        self.transport.close()


def connection_of(scope: Scope) -> Connection:
    """Return the connection that a call came by."""
    connection = scope["extensions"][CONNECTION]
    assert isinstance(connection, Connection)
    return connection
