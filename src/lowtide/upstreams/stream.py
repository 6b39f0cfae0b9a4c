"""A reply that is handed on piece by piece, for interactive calls.

Holds at most a bounded amount that its reader has not taken: beyond it the transfer is paused, so that a slow reader
slows the upstream instead of filling memory. Pieces are those of the connection, undecoded.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping

import pycurl

from lowtide.ports.upstream import UpstreamError
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.multi import Multi
from lowtide.upstreams.transfer import ReplyHeaders, Transfer, new_handle

HELD_BYTES_MAX = 256 * 1024


class Stream:
    """Implements `ports.upstream.ReplyStream`."""

    def __init__(self, config: UpstreamConfig, multi: Multi, running: "dict[pycurl.Curl, Transfer | Stream]") -> None:
        self.lane = multi.join()
        self.curl = new_handle(config, self.lane)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._header)
        self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, round(config.connect_timeout_s * 1000))
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._multi = multi
        self._running = running
        self._body_length = 0
        self._lines: list[bytes] = []
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._paused = False
        self._ended = False
        self._error: UpstreamError | None = None
        self._head: asyncio.Future[None] = multi.loop.create_future()
        self._news = asyncio.Event()

    def prepare(self, url: str, body: bytes, header_list: list[str], timeout_s: float) -> None:
        self.curl.setopt(pycurl.URL, url)
        self.curl.setopt(pycurl.POST, 1)
        self.curl.setopt(pycurl.POSTFIELDS, body)
        self._body_length = len(body)
        self.curl.setopt(pycurl.HTTPHEADER, header_list)
        self.curl.setopt(pycurl.TIMEOUT_MS, max(1, int(timeout_s * 1000)))

    async def start(self) -> None:
        """Return when the head of the reply is there; raises UpstreamError."""
        self._running[self.curl] = self
        self._multi.start(self.lane, self.curl, self._body_length)
        try:
            await self._head
        except asyncio.CancelledError:
            await self.close()
            raise

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._held_bytes -= len(piece)
                yield piece
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._news.clear()
            if self._paused:
                self._paused = False
                self.curl.pause(pycurl.PAUSE_CONT)
                self._multi.step_soon(self.lane)
            await self._news.wait()

    async def close(self) -> None:
        if not self._ended:
            del self._running[self.curl]
            self._multi.stop(self.lane, self.curl)
            self._end(None)

    def finish(self, error: UpstreamError | None) -> None:
        """Take the end of the transfer."""
        self._end(error)
        if not self._head.done():
            if error is None:
                self._head.set_result(None)
            else:
                self._head.set_exception(error)

    def _end(self, error: UpstreamError | None) -> None:
        self.lane.members -= 1
        self._ended, self._error = True, error
        self._news.set()

    def _header(self, line: bytes) -> None:
        self._lines.append(line)
        if line not in {b"\r\n", b"\n"} or self._head.done():
            return
        status = _status(self._lines)
        if status >= 200:
            self.status, self.headers = status, ReplyHeaders(self._lines)
            self._head.set_result(None)
        self._lines = []

    def _write(self, piece: bytes) -> int | None:
        if self._held_bytes >= HELD_BYTES_MAX:
            self._paused = True
            return int(pycurl.WRITEFUNC_PAUSE)
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        self._news.set()
        return None


def _status(lines: list[bytes]) -> int:
    """Return the status of a head: libcurl, which checked its first line, answers no question while it calls us."""
    return int(lines[0].split(None, 2)[1])
