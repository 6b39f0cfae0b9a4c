"""Where a download goes: a file that a later command can go on with, or lines that are looked at as they come.

Invariant: FILE appears only when it is whole. Until then its bytes are in FILE.part, and FILE.part.etag says of which
results they are; without that note a part is begun anew.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from lowtide.client.errors import BrokenOff, Incomplete
from lowtide.client.exchange import BLOCK_BYTES


class _Note(msgspec.Struct, frozen=True):
    batch: str
    etag: str


def part_of(path: Path) -> Path:
    """Return the file that a download to `path` is kept in while it lasts."""
    return path.with_name(f"{path.name}.part")


class PartFile:
    """FILE.part as a sink. `lines` counts those that it has."""

    def __init__(self, path: Path, batch_id: str) -> None:
        self._path, self._part, self._batch = path, part_of(path), batch_id
        self._note = path.with_name(f"{path.name}.part.etag")
        self.offset, self.lines = 0, 0
        self.etag = self._noted()
        self._last = b"\n"
        self._file = self._part.open("ab" if self.etag else "wb")
        if self.etag:
            self._count()

    def write(self, block: bytes) -> None:
        if self.offset == 0 and self.etag:
            self._note.write_bytes(msgspec.json.encode(_Note(self._batch, self.etag)))
        self._file.write(block)
        self.offset += len(block)
        self._take(block)

    def restart(self) -> None:
        self._note.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self.offset, self.lines, self.etag, self._last = 0, 0, None, b"\n"

    def keep(self) -> None:
        """Leave what has come for a later try."""
        self._file.close()

    def finish(self, lines: int) -> None:
        """Make the part the file; raises Incomplete when it has not this many lines."""
        has = self.lines + (self._last != b"\n")
        if has != lines:
            self.restart()
            self._file.close()
            raise Incomplete(f"The results have {has:,} lines for {lines:,} requests; they are not complete.")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)
        self._note.unlink(missing_ok=True)

    def _noted(self) -> str | None:
        """Return the ETag of the part that is there, if it is one of this batch."""
        try:
            note = msgspec.json.decode(self._note.read_bytes(), type=_Note)
        except (OSError, msgspec.DecodeError):
            return None
        return note.etag if note.batch == self._batch and self._part.exists() else None

    def _count(self) -> None:
        with self._part.open("rb") as part:
            while block := part.read(BLOCK_BYTES):
                self.offset += len(block)
                self._take(block)

    def _take(self, block: bytes) -> None:
        self.lines += block.count(b"\n")
        self._last = block[-1:]


class LineSink:
    """Hands on each whole line; begins anew only if `forget` can take back what was handed on."""

    def __init__(self, each: Callable[[bytes], None], forget: Callable[[], None] | None = None) -> None:
        self._each, self._forget = each, forget
        self.offset, self.lines = 0, 0
        self.etag: str | None = None
        self._rest: list[bytes] = []

    def write(self, block: bytes) -> None:
        self.offset += len(block)
        *whole, rest = block.split(b"\n")
        for line in whole:
            self._hand_on(line)
        if rest:
            self._rest.append(rest)

    def restart(self) -> None:
        if self.lines and self._forget is None:
            raise BrokenOff(
                "The download broke and this server cannot resume it; with --output FILE it would begin anew."
            )
        if self._forget is not None:
            self._forget()
        self.offset, self.lines, self.etag = 0, 0, None
        self._rest.clear()

    def finish(self, lines: int) -> None:
        """Hand on a last line that has no end; raises Incomplete when there were not this many lines."""
        if self._rest:
            self._hand_on(b"")
        if self.lines != lines:
            raise Incomplete(f"The results have {self.lines:,} lines for {lines:,} requests; they are not complete.")

    def _hand_on(self, end: bytes) -> None:
        line = b"".join([*self._rest, end])
        self._rest.clear()
        self.lines += 1
        self._each(line)
