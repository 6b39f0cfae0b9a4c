"""Results in the order of the input.

A batch's results come in the order in which they were committed. They are written to a scratch file, where the place of
each line is noted by its request's position, and read back in that order: memory goes with the requests of one batch,
whatever the input's size. A later round ran what an earlier one left without success, in the same order, so that its
results replace those one by one.
"""

import mmap
import re
from array import array
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lowtide.api.services import Services
from lowtide.app.run.manifest import Cut, Manifest
from lowtide.app.run.reading import LineReader, lines_of
from lowtide.domain.errors import ObjectMissing
from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import Batch

_LINE: Final = re.compile(rb'\{"custom_id":"([^"]*)","result":\{"type":"([a-z]+)"')


@dataclass(frozen=True, slots=True)
class Result:
    """A result line and the number of the input's line that it answers."""

    number: int
    line: bytes

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.line)


def outcome_of(line: bytes) -> Outcome:
    """Return a result line's outcome."""
    return Outcome(_matched(line)[2].decode())


def _matched(line: bytes) -> re.Match[bytes]:
    found = _LINE.match(line)
    if found is None:
        raise ObjectMissing("a line of the results is not one")
    return found


async def batch_of(services: Services, cut: Cut) -> Batch:
    """Return a cut's batch as it now is; it was made."""
    found = None if cut.batch is None else await services.store.get_batch(DEFAULT_WORKSPACE, cut.batch)
    if found is None:
        raise ObjectMissing(f"the batch {cut.batch} of this run is gone")
    return found


async def lines_from(services: Services, cut: Cut, start: int = 0) -> AsyncGenerator[bytes, None]:
    """Yield the result lines of a batch that has ended, in their own order, from byte `start`."""
    opened = await services.results.open(await batch_of(services, cut))
    rest = b""
    async with aclosing(opened.stream(start)) as pieces:
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line + b"\n"


class Sorter:
    """Yields a run's results in the order of its input."""

    def __init__(
        self, services: Services, manifest: Manifest, reader: LineReader, files: list[Path], scratch: Path
    ) -> None:
        self._services = services
        self._manifest = manifest
        self._reader = reader
        self._files = files
        self._scratch = scratch

    async def merged(self, round_: int = 0) -> AsyncGenerator[Result, None]:
        """Yield the last result of each request of a round, and so of the whole input for the first."""
        async with aclosing(self.ordered(round_)) as results:
            if round_ == len(self._manifest.rounds) - 1:
                async for result in results:
                    yield result
                return
            async with aclosing(self.merged(round_ + 1)) as later:
                async for result in results:
                    if result.outcome is Outcome.SUCCEEDED:
                        yield result
                    else:
                        yield Result(result.number, (await anext(later)).line)

    async def ordered(self, round_: int) -> AsyncGenerator[Result, None]:
        """Yield the results of one round alone."""
        scratch = self._scratch.with_name(f"{self._scratch.name}.{round_}")
        try:
            for cut in self._manifest.rounds[round_].cuts:
                async with aclosing(self._sorted(cut, self._files[round_], scratch)) as results:
                    async for result in results:
                        yield result
        finally:
            scratch.unlink(missing_ok=True)

    async def _sorted(self, cut: Cut, file: Path, scratch: Path) -> AsyncGenerator[Result, None]:
        numbers, begins, lengths = array("Q"), array("Q", bytes(8 * cut.count)), array("Q", bytes(8 * cut.count))
        positions: dict[bytes, int] = {}
        for line in lines_of(file, self._reader.length_max, cut.start, cut.end, cut.line):
            positions[self._reader.custom_id(line).encode()] = len(numbers)
            numbers.append(line.number)
        at = 0
        with scratch.open("wb") as out:
            async with aclosing(lines_from(self._services, cut)) as lines:
                async for text in lines:
                    position = positions[_matched(text)[1]]
                    begins[position], lengths[position] = at, len(text)
                    at += out.write(text)
        del positions
        with scratch.open("rb") as stored, mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for number, begin, length in zip(numbers, begins, lengths, strict=True):
                if not length:
                    raise ObjectMissing(f"the results of {cut.batch} lack that of line {number}")
                yield Result(number, view[begin : begin + length])
