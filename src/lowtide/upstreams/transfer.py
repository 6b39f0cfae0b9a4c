"""One reusable transfer: a libcurl handle with everything set that does not change from call to call.

Owns the options that keep a call safe (no redirects, no proxy from the environment, no signals, bounds on what comes
in) and the translation of libcurl's errors into those of the port.
"""

import ssl
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pycurl

from lowtide.ports.upstream import (
    Reply,
    UpstreamBroke,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.multi import Lane

if TYPE_CHECKING:
    from asyncio import Future

_KEEPALIVE_S: Final = 30
_DEBIAN_CA_FILE: Final = "/etc/ssl/certs/ca-certificates.crt"


class ReplyHeaders(Mapping[str, str]):
    """The headers of a reply, read when they are first asked for: most replies' never are.

    `lines` are those of every head that came, interim ones included; the last head counts. Names are lower case;
    repeated ones are joined with commas.
    """

    __slots__ = ("__dict__", "_lines")

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    @cached_property
    def _fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(b"HTTP/"):
                fields = {}
                continue
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                key, text = name.strip().lower(), value.strip()
                fields[key] = f"{fields[key]}, {text}" if key in fields else text
        return fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Transfer:
    """A handle for whole replies, a member of one lane for life. `pieces` and `lines` fill while it runs."""

    __slots__ = (
        *("_left", "_reply_bytes_max", "connect_by", "curl", "deadline", "future", "header_list"),
        *("lane", "lines", "pieces", "too_large"),
    )

    def __init__(self, config: UpstreamConfig, lane: Lane) -> None:
        self.lane = lane
        self.curl = new_handle(config, lane)
        self.curl.setopt(pycurl.ACCEPT_ENCODING, "gzip, br")
        self.curl.setopt(pycurl.MAXFILESIZE_LARGE, config.reply_bytes_max)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)
        self._reply_bytes_max = config.reply_bytes_max
        self.header_list: list[str] | None = None
        self.future: Future[Reply] | None = None
        self.deadline = self.connect_by = 0.0
        self.reset()

    def reset(self) -> None:
        """Make ready for another reply."""
        self.pieces: list[bytes] = []
        self.lines: list[bytes] = []
        self._left = self._reply_bytes_max
        self.too_large = False
        self.curl.setopt(pycurl.HEADERFUNCTION, self.lines.append)

    def _write(self, piece: bytes) -> int | None:
        self._left -= len(piece)
        if self._left < 0:
            self.too_large = True
            return 0
        self.pieces.append(piece)
        return None


def new_handle(config: UpstreamConfig, lane: Lane) -> pycurl.Curl:
    """Return a handle with what every call to this upstream has in common."""
    curl = pycurl.Curl()
    curl.setopt(pycurl.SOCKOPTFUNCTION, lane.on_connect)
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.PROXY, config.proxy or "")
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.TCP_NODELAY, 1)
    curl.setopt(pycurl.TCP_KEEPALIVE, 1)
    curl.setopt(pycurl.TCP_KEEPIDLE, _KEEPALIVE_S)
    curl.setopt(pycurl.TCP_KEEPINTVL, _KEEPALIVE_S)
    if config.base_url.startswith("https:"):
        curl.setopt(pycurl.CAINFO, config.ca_file or _system_ca_file())
    return curl


def _system_ca_file() -> str:
    """Return the machine's certificates: libcurl's own idea of the path is that of the machine it was built on."""
    paths = ssl.get_default_verify_paths()
    candidates = (paths.cafile, paths.openssl_cafile, _DEBIAN_CA_FILE)
    return next((path for path in candidates if path and Path(path).is_file()), _DEBIAN_CA_FILE)


def error_of(curl: pycurl.Curl, code: int, text: str, *, too_large: bool) -> UpstreamError:
    """Return what a failed transfer means.

    Whether anything was sent is asked of libcurl, not read from the code: it repeats a call by itself when a reused
    connection turns out dead, and if the engine died of that call, the repetition ends as "connection refused".
    """
    if too_large or code == pycurl.E_FILESIZE_EXCEEDED:
        return UpstreamReplyTooLarge("the upstream's reply passed the bound on its size")
    if not curl.getinfo(pycurl.REQUEST_SIZE):
        return UpstreamUnreachable(f"the upstream cannot be reached: {text}")
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return UpstreamTimeout("the upstream sent no whole reply in time")
    return UpstreamBroke(f"the upstream's reply broke off: {text}")


def overdue(transfer: Transfer, now: float) -> UpstreamError | None:
    """Return what the loop's time says about a transfer under way; None when it may go on."""
    if now < transfer.connect_by and now < transfer.deadline:
        return None
    if not transfer.curl.getinfo(pycurl.REQUEST_SIZE):
        return UpstreamUnreachable("the upstream cannot be reached: no connection in time")
    if now >= transfer.deadline:
        return UpstreamTimeout("the upstream sent no whole reply in time")
    transfer.connect_by = transfer.deadline
    return None
