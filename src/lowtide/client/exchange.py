"""One call over HTTP: a connection, a request whose body may be a stream, and an answer read as it comes.

Invariant: an answer that ends early is never taken for a whole one. `http.client` itself returns a short body without
a word when a `content-length` was promised, so what is missing is counted here.
"""

import http.client
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import lowtide
from lowtide.client.errors import BrokenOff, Unreachable
from lowtide.client.server import Server

BLOCK_BYTES = 64 * 1024
_BROKEN = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body of a known length; `blocks` are made anew for each try."""

    length: int
    blocks: Iterable[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, its header names in lower case; its body is read once, by `blocks`, `lines` or `read`.

    Leaving it closes the connection.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    _response: http.client.HTTPResponse = field(repr=False)
    _connection: http.client.HTTPConnection = field(repr=False)
    _where: str = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()
        self._connection.close()

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it comes; raises BrokenOff when it ends before its end."""
        while block := self._take(self._response.read1, BLOCK_BYTES):
            yield block
        if self._response.length:
            raise self._broken()

    def lines(self) -> Iterator[bytes]:
        """Yield the body line by line, each with its LF; raises BrokenOff."""
        while line := self._take(self._response.readline, -1):
            yield line

    def read(self) -> bytes:
        """Return the whole body; raises BrokenOff."""
        return b"".join(self.blocks())

    def _take(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except _BROKEN as error:
            raise self._broken() from error

    def _broken(self) -> BrokenOff:
        return BrokenOff(f"The connection to {self._where} broke before the answer was whole.")


def exchange(
    server: Server, method: str, path: str, headers: Mapping[str, str], upload: Upload | None = None
) -> Answer:
    """Make one call and return its answer, whatever its status; raises Unreachable and BrokenOff."""
    connection, target = _connection(server, path)
    sent = {**_headers(server), **headers, "connection": "close"}
    if upload is not None:
        sent |= {"content-length": str(upload.length), "content-type": "application/json"}
    try:
        _connect(connection, server)
        response = _talk(connection, server, method, target, upload, sent)
    except BaseException:
        connection.close()
        raise
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, names, response, connection, server.url)


def _headers(server: Server) -> dict[str, str]:
    key = {} if server.key is None else {"x-api-key": server.key}
    return {
        "accept": "*/*",
        "accept-encoding": "identity",  # ranges and line counts are of the bytes as they are
        "anthropic-version": server.version,
        "user-agent": f"lowtide/{lowtide.__version__}",
        **key,
    }


def _connection(server: Server, path: str) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection, by way of the environment's proxy if there is one, and what to ask it for."""
    parts = urlsplit(server.url)
    host, target = parts.hostname or "", f"{parts.path}{path}"
    proxy = None if _is_here(host) or proxy_bypass(host) else getproxies().get(parts.scheme)
    if proxy is None:
        return _kind(parts.scheme, host, parts.port, server), target
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme == "http":
        return _kind(way.scheme, way.hostname or "", way.port, server), f"{server.url}{path}"
    connection = _kind(parts.scheme, way.hostname or "", way.port, server)
    connection.set_tunnel(host, parts.port or 443)
    return connection, target


def _kind(scheme: str, host: str, port: int | None, server: Server) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=server.connect_s, context=context)
    return http.client.HTTPConnection(host, port, timeout=server.connect_s)


def _is_here(host: str) -> bool:
    """Tell whether a host is this machine, to which no proxy leads."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _connect(connection: http.client.HTTPConnection, server: Server) -> None:
    try:
        connection.connect()
    except TimeoutError:
        raise Unreachable(f"{server.url} did not answer within {server.connect_s:g} s.") from None
    except ssl.SSLError as error:
        raise Unreachable(f"No secure connection to {server.url}: {error.reason or error}.") from error
    except _BROKEN as error:
        raise Unreachable(f"Cannot reach {server.url}: {_reason(error)}.") from error
    assert connection.sock is not None
    connection.sock.settimeout(server.idle_s)


def _talk(
    connection: http.client.HTTPConnection,
    server: Server,
    method: str,
    target: str,
    upload: Upload | None,
    headers: Mapping[str, str],
) -> http.client.HTTPResponse:
    """Send a call and return the head of its answer."""
    sent = True
    try:
        connection.request(method, target, None if upload is None else upload.blocks, dict(headers))
    except TimeoutError:
        raise BrokenOff(f"{server.url} took no bytes for {server.idle_s:g} s.", sent=False) from None
    except _BROKEN:
        # A server that refuses a body may answer and close before it has read it all: the answer is still there.
        sent = False
    try:
        return connection.getresponse()
    except TimeoutError:
        raise BrokenOff(f"{server.url} did not answer for {server.idle_s:g} s.", sent=sent) from None
    except _BROKEN as error:
        raise BrokenOff(f"{server.url} closed the connection without an answer.", sent=sent) from error


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
