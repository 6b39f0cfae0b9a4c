"""The requests object: for each chunk of the plan its head, then its params, exactly as the client wrote them.

The params go from the mapped body to the file by `writev`, so a body of any size passes through without being held. The
file's bytes are on disk when `write` returns; while it writes, a thread already syncs what is written, since the disk
would otherwise stand idle until the end.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lowtide.domain.checksum import checksum, checksum_of
from lowtide.domain.chunks import encode_head
from lowtide.domain.errors import StoreFull
from lowtide.intake.plan import PlannedChunk
from lowtide.intake.split import Split
from lowtide.ports.metadata import NewChunk

_SYNC_BYTES = 32 << 20


def write(path: Path, requests: Split, planned: Iterable[PlannedChunk]) -> list[NewChunk]:
    """Write the requests object to a new file and return its chunks; raises StoreFull."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with ThreadPoolExecutor(1) as syncer:
            return _write_chunks(file, requests, planned, syncer)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise StoreFull(os.strerror(error.errno)) from error
        raise
    finally:
        os.close(file)


def _write_chunks(
    file: int, requests: Split, planned: Iterable[PlannedChunk], syncer: ThreadPoolExecutor
) -> list[NewChunk]:
    chunks = []
    offset = synced = 0
    syncing: Future[None] = syncer.submit(os.fdatasync, file)
    for chunk in planned:
        params = [memoryview(requests.params[position]) for position in chunk.positions]
        lengths = [len(view) for view in params]
        head = encode_head(
            [requests.custom_ids[position] for position in chunk.positions],
            chunk.positions,
            lengths,
            checksum_of(params),
        )
        length = len(head) + sum(lengths)
        _write_all(file, [memoryview(head), *params], length)
        chunks.append(
            NewChunk(chunk.group, chunk.model, offset, length, len(head), checksum(head), len(chunk.positions))
        )
        offset += length
        if offset - synced >= _SYNC_BYTES and syncing.done():
            syncing.result()
            syncing, synced = syncer.submit(os.fdatasync, file), offset
    syncing.result()
    os.fsync(file)
    return chunks


def _write_all(file: int, pieces: Sequence[memoryview], length: int) -> None:
    written = os.writev(file, pieces)
    if written == length:
        return
    for piece in pieces:  # a short write: what it left goes piece by piece
        skipped = min(written, len(piece))
        written -= skipped
        rest = piece[skipped:]
        while rest:
            rest = rest[os.write(file, rest) :]
