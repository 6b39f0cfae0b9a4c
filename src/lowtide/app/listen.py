"""The listening socket, bound by the supervisor and inherited by each API process in turn.

While one API process is dead and the next is starting, connections wait in the socket's backlog: a kill loses none.
"""

import errno
import ipaddress
import socket

from lowtide.domain.errors import SettingsError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a loopback address; raises SettingsError for any other, or if it is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        text = f'The setting host is "{host}", but it should be a loopback address such as 127.0.0.1.'
        raise SettingsError(text) from None
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        text = (
            f'The setting host is "{host}", but it should be a loopback address such as 127.0.0.1: this server has no '
            "keys, so whoever reaches it may use it; let a proxy on this machine check who calls from elsewhere."
        )
        raise SettingsError(text)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(_refusal(host, port, error)) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL under which the socket answers."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use by another program; choose another with --port (0 takes a free one)."
    return f"Port {port} of {host} cannot be listened on ({error.strerror}); choose another with --port."
