"""The spool: a body goes to disk as it arrives, counted, decoded and digested on the way.

The event loop only hands pieces over: inflating, hashing and writing happen in a thread, one batch of pieces behind the
network, so that no other call waits for a disk. It must never hold more of a body than two such batches. A body that is
too large is refused at the first byte too many, one that trickles in is refused, and all bodies together are bounded.
The file is not synced: nothing is promised before the requests object is. Who calls removes the file.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lowtide.domain.errors import FULL_ERRNOS, Overloaded, StoreFull, TooLarge, TooSlow
from lowtide.intake.decoding import Decoder

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may come: silence of at most `idle_s`, and after that time at least `bytes_per_s` overall."""

    idle_s: float
    bytes_per_s: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """A whole body on disk: its decoded length and SHA-256."""

    length: int
    digest: str


@dataclass
class Room:
    """The disk space that all bodies in the spool share."""

    bytes_max: int
    taken_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, length: int) -> None:
        """Take room, or raise Overloaded when there is none."""
        with self._lock:
            if self.taken_bytes + length > self.bytes_max:
                raise Overloaded("Too many request bodies are being received; try again")
            self.taken_bytes += length

    def give_back(self, length: int) -> None:
        with self._lock:
            self.taken_bytes -= length


@dataclass
class _File:
    """The file side of a spool; only ever touched by one thread at a time."""

    path: Path
    decoder: Decoder
    bytes_max: int
    room: Room
    length: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    fd: int = -1

    def write(self, pieces: list[bytes]) -> None:
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        for piece in pieces:
            for decoded in self.decoder.decode(piece):
                self._append(decoded)

    def _append(self, decoded: bytes) -> None:
        if self.length + len(decoded) > self.bytes_max:
            raise TooLarge
        self.room.take(len(decoded))
        self.length += len(decoded)
        self.digest.update(decoded)
        rest = memoryview(decoded)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                raise StoreFull(os.strerror(error.errno)) from error
            raise

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def discard(self) -> None:
        self.close()
        self.room.give_back(self.length)
        self.path.unlink(missing_ok=True)


class Spool:
    """One body's way to disk. Leaving it removes the file and gives its room back, whatever happened."""

    def __init__(self, path: Path, decoder: Decoder, bytes_max: int, room: Room, pace: Pace) -> None:
        self.path = path
        self._file = _File(path, decoder, bytes_max, room)
        self._bytes_max = bytes_max
        self._pace = pace
        self._writing: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._leaving = asyncio.create_task(self._leave())
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        if self._writing is not None:  # its thread still holds the descriptor; its error is told by who awaited it
            await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.to_thread(self._file.discard)  # freeing a large file takes a while

    async def receive(self, body: AsyncIterator[bytes], watch: Callable[[int], None]) -> Spooled:
        """Write a whole body, telling `watch` how many bytes have arrived.

        Raises TooLarge, TooSlow, Overloaded, StoreFull, or InvalidRequest for bad gzip.
        """
        batch: list[bytes] = []
        held = 0
        async for piece in self._paced(body, watch):
            batch.append(piece)
            held += len(piece)
            if held >= _BATCH_BYTES:
                await self._hand_over(batch)
                batch, held = [], 0
        await self._hand_over(batch)
        await self._settle()
        self._file.decoder.finish()
        self._file.close()
        return Spooled(self._file.length, self._file.digest.hexdigest())

    async def _paced(self, body: AsyncIterator[bytes], watch: Callable[[int], None]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        arrived = 0
        while True:
            try:
                async with asyncio.timeout(self._pace.idle_s):
                    piece = await anext(body)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise TooSlow(f"The request body stood still for {self._pace.idle_s:g} seconds") from None
            arrived += len(piece)
            if arrived > self._bytes_max:
                raise TooLarge
            taken_s = loop.time() - begun_s
            if taken_s > self._pace.idle_s and arrived < taken_s * self._pace.bytes_per_s:
                raise TooSlow(f"The request body arrives at less than {self._pace.bytes_per_s} bytes a second")
            watch(arrived)
            yield piece

    async def _hand_over(self, batch: list[bytes]) -> None:
        """Give a batch to the thread once it has written the one before."""
        await self._settle()
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._file.write, batch)

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None
