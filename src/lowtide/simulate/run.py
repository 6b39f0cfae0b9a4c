"""The process of a simulated server: its socket, its limits, its end.

The one line on standard output names the address, printed once the socket listens: whoever started the process with port
0 reads it there.
"""

import ipaddress
import resource
import socket

import uvicorn

from lowtide.domain.errors import SettingsError
from lowtide.simulate.connection import Connection
from lowtide.simulate.server import create_app
from lowtide.simulate.settings import ServerSettings

_BACKLOG = 4_096
_KEEP_ALIVE_S = 75
_GRACE_S = 1


def serve(settings: ServerSettings, host: str, port: int, *, anywhere: bool) -> None:
    """Serve until a signal ends it; SettingsError if the address cannot be had or, unless `anywhere`, is not loopback."""
    if not anywhere and not _is_loopback(host):
        raise SettingsError(f"--host {host} is not a loopback address; add --anywhere to serve simulated replies there")
    app = create_app(settings)
    listener = _listen(host, port)
    _allow_many_files()
    name, bound = listener.getsockname()[:2]
    print(f"lowtide simulate: simulated models at http://{_in_url(name)}:{bound}", flush=True)  # noqa: T201  # the one line of output
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=[("server", "lowtide-simulate"), ("x-lowtide-simulated", "true")],
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _allow_many_files() -> None:
    """Raise the soft limit on open files to the hard one: each call in flight is a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
