"""The requests object: for each chunk of the plan its head, then its params, exactly as the client wrote them.

The params go from the mapped body to the file by `writev`, so a body of any size passes through without being held. The
file's bytes are on disk when `write` returns; while it writes, a thread already syncs what is written, since the disk
would otherwise stand idle until the end.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from lowtide.domain.checksum import checksum, checksum_of
from lowtide.domain.chunks import encode_head
from lowtide.domain.errors import FULL_ERRNOS, StoreFull
from lowtide.intake.plan import PlannedChunk
from lowtide.intake.split import Split
from lowtide.ports.metadata import NewChunk

_SYNC_BYTES = 32 << 20
_PIECES_AT_ONCE = 512
"""With one more chunk this stays below the 1,024 pieces that one `writev` takes."""


def write(path: Path, requests: Split, planned: Iterable[PlannedChunk]) -> list[NewChunk]:
    """Write the requests object to a new file and return its chunks; raises StoreFull."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with _Writer(file) as writer:
            return [_write_chunk(writer, requests, chunk) for chunk in planned]
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise StoreFull(os.strerror(error.errno)) from error
        raise
    finally:
        os.close(file)


def _write_chunk(writer: "_Writer", requests: Split, chunk: PlannedChunk) -> NewChunk:
    params = [memoryview(requests.params[position]) for position in chunk.positions]
    lengths = [len(view) for view in params]
    custom_ids = [requests.custom_ids[position] for position in chunk.positions]
    head = encode_head(custom_ids, chunk.positions, lengths, checksum_of(params))
    offset = writer.offset
    writer.add([memoryview(head), *params])
    return NewChunk(
        group=chunk.group,
        model=chunk.model,
        offset=offset,
        length=writer.offset - offset,
        head_length=len(head),
        head_checksum=checksum(head),
        size=len(chunk.positions),
    )


class _Writer:
    """Writes pieces one batch behind, in a thread, while another thread syncs what is written.

    Leaving it without an error leaves everything on disk.
    """

    def __init__(self, file: int) -> None:
        self.offset = 0
        self._file = file
        self._threads = ThreadPoolExecutor(2)
        self._batch: list[memoryview] = []
        self._synced = 0
        self._writing: Future[None] = Future()
        self._writing.set_result(None)
        self._syncing: Future[None] = self._writing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self._hand_over()
                self._writing.result()
                self._syncing.result()
                os.fsync(self._file)
        finally:
            self._threads.shutdown()

    def add(self, pieces: Sequence[memoryview]) -> None:
        """Append pieces, at most CHUNK_REQUESTS_MAX + 1 of them."""
        self._batch += pieces
        self.offset += sum(map(len, pieces))
        if len(self._batch) > _PIECES_AT_ONCE:
            self._hand_over()

    def _hand_over(self) -> None:
        self._writing.result()
        if self.offset - self._synced >= _SYNC_BYTES and self._syncing.done():
            self._syncing.result()
            self._syncing, self._synced = self._threads.submit(os.fdatasync, self._file), self.offset
        self._writing = self._threads.submit(_write_all, self._file, self._batch)
        self._batch = []


def _write_all(file: int, pieces: Sequence[memoryview]) -> None:
    written = os.writev(file, pieces)
    for piece in pieces:  # a short write: what it left goes piece by piece
        skipped = min(written, len(piece))
        written -= skipped
        rest = piece[skipped:]
        while rest:
            rest = rest[os.write(file, rest) :]
