"""The listening socket, bound by the supervisor and inherited by each API process in turn.

While one API process is dead and the next is starting, connections wait in the socket's backlog: a kill loses none.
"""

import errno
import ipaddress
import socket
from dataclasses import dataclass

from lowtide.domain.errors import SettingsError

BACKLOG = 2048
Sockaddr = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: the setting, and what it stands for."""

    host: str
    port: int
    family: int
    address: Sockaddr

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        return ipaddress.ip_address(str(self.address[0]).partition("%")[0]).is_loopback


def resolve(host: str, port: int) -> Address:
    """Return the address that a setting stands for; raises SettingsError. It is looked up once: names may change."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        text = f'The setting host is "{host}", but it should be an address of this machine such as 127.0.0.1.'
        raise SettingsError(text) from None
    return Address(host, port, family, address)


def listen(at: Address) -> socket.socket:
    """Return a socket that listens; raises SettingsError if it cannot."""
    listener = socket.socket(at.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(at.address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(_refusal(at, error)) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL under which the socket answers."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refusal(at: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        text = f"Port {at.port} of {at.host} is in use by another program"
    elif error.errno == errno.EADDRNOTAVAIL:
        return f'The setting host is "{at.host}", but it should be an address of this machine such as 127.0.0.1.'
    else:
        text = f"Port {at.port} of {at.host} cannot be listened on ({error.strerror})"
    return f"{text}; choose another with --port (0 takes a free one)."
