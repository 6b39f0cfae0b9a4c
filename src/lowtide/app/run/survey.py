"""The first look at an input: every line judged, no custom_id twice, and where it is cut into batches.

Nothing is sent before this is through without a problem. It holds one line at a time; the custom_ids met so far stand in
a scratch database on disk, so that a file of any size is surveyed in the same memory.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from lowtide.app.run.manifest import Cut
from lowtide.app.run.reading import BadLine, Line, LineReader, lines_of
from lowtide.app.run.source import Source
from lowtide.domain.limits import Limits

PROBLEMS_MAX: Final = 20
_TICK_LINES: Final = 2_000
_BODY_MARGIN_BYTES: Final = 1024
"""What a create's body has around its items, and to spare."""


@dataclass
class Survey:
    """What was found: the cuts, how many requests, and the problems, of which only the first are kept."""

    noun: str = "line"
    cuts: list[Cut] = field(default_factory=list)
    requests: int = 0
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def object_to(self, number: int, text: str) -> None:
        """Note a problem of a line."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{self.noun} {number}: {text}")


def survey(source: Source, reader: LineReader, limits: Limits, scratch: Path, tick: Callable[[int], None]) -> Survey:
    """Look at every line; `tick` is called now and then with how many were read."""
    found = Survey(source.noun)
    cutter = _Cutter(limits, found.cuts)
    with _Ids(scratch) as ids:
        for line in lines_of(source.path, reader.length_max):
            try:
                entry = reader.read(line)
            except BadLine as problem:
                found.object_to(line.number, str(problem))
            else:
                first = ids.add(entry.custom_id, line.number)
                if first is not None:
                    found.object_to(line.number, f"custom_id {entry.custom_id} is already that of {found.noun} {first}")
                cutter.add(line, len(entry.item()) + 1)
            found.requests += 1
            if not found.requests % _TICK_LINES:
                tick(found.requests)
    cutter.end(source.path.stat().st_size)
    tick(found.requests)
    return found


class _Cutter:
    """Cuts lines into batches that the limits allow: as many requests, and as many bytes, as one may have."""

    def __init__(self, limits: Limits, cuts: list[Cut]) -> None:
        self._requests_max = limits.requests_max
        self._bytes_max = limits.body_bytes_max - _BODY_MARGIN_BYTES
        self._cuts = cuts
        self._first: Line | None = None
        self._count = self._bytes = 0

    def add(self, line: Line, length: int) -> None:
        if self._count == self._requests_max or self._bytes + length > self._bytes_max:
            self.end(line.start)
        if self._first is None:
            self._first = line
        self._count += 1
        self._bytes += length

    def end(self, at: int) -> None:
        if self._first is not None:
            self._cuts.append(Cut(start=self._first.start, end=at, line=self._first.number, count=self._count))
        self._first, self._count, self._bytes = None, 0, 0


class _Ids:
    """The custom_ids met so far, with the line of each, in a file of no worth."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        self._database = sqlite3.connect(self._path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE met (custom_id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)
        return self

    def __exit__(self, *exc: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def add(self, custom_id: str, line: int) -> int | None:
        """Note an id; returns the line that has it already, if any."""
        added = self._database.execute("INSERT OR IGNORE INTO met VALUES (?, ?)", (custom_id, line)).rowcount
        if added:
            return None
        row = self._database.execute("SELECT line FROM met WHERE custom_id = ?", (custom_id,)).fetchone()
        return int(row[0])
