"""The output file: whole and in place at once (order of input), or growing while the run goes on (order of finish).

What grows is written down in this order: bytes, sync, then the manifest's note of how many; a run that resumes cuts the
file back to that note, so that no line stands in it twice. Nothing here decides which results there are.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from lowtide.api.services import Services
from lowtide.app.run.manifest import Cut, Manifest, put_in_place, save
from lowtide.app.run.sorting import batch_of, lines_from, outcome_of
from lowtide.domain.errors import BlocksMoved
from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import StoredBlock
from lowtide.results.blocks import PAGE_BLOCKS, block_steps, sent_length

_BUFFER_BYTES = 1 << 20


async def write_whole(output: Path, lines: AsyncIterator[bytes]) -> int:
    """Replace the output by these lines, or leave it as it was; returns its length."""
    new = output.with_name(output.name + ".partial")
    length = 0
    with new.open("wb", _BUFFER_BYTES) as file:
        async for line in lines:
            length += file.write(line)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(new, output)
    return length


async def as_finished(services: Services, manifest: Manifest) -> AsyncGenerator[bytes, None]:
    """Yield the last result of each request, round by round, in the order of finish."""
    last = len(manifest.rounds) - 1
    for number, one in enumerate(manifest.rounds):
        for cut in one.cuts:
            async with aclosing(lines_from(services, cut)) as lines:
                async for line in lines:
                    if number == last or outcome_of(line) is Outcome.SUCCEEDED:
                        yield line


class Follower:
    """Appends the results of the first round to the output as they come."""

    def __init__(self, services: Services, output: Path, state: Path, manifest: Manifest) -> None:
        self._services = services
        self._state = state
        self._manifest = manifest
        self._cuts = manifest.rounds[0].cuts
        self._seen: dict[str, _Seen] = {}
        self._complete: set[str] = set()
        self._file = output.open("ab", _BUFFER_BYTES)
        noted = sum(cut.written for cut in self._cuts)
        if self._file.tell() < noted:  # someone took the file away: it is written anew
            noted = 0
            for cut in self._cuts:
                cut.written = 0
        self._file.truncate(noted)

    async def step(self) -> None:
        """Append what is new of every batch."""
        grown = False
        for cut in self._cuts:
            if cut.batch is None or cut.batch in self._complete:
                continue
            before = cut.written
            async with aclosing(self._fresh(cut)) as pieces:
                async for piece in pieces:
                    cut.written += self._file.write(piece)
            grown = grown or cut.written > before
        if grown:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            save(self._state, self._manifest)

    def close(self) -> int:
        """Close the file; returns its length."""
        self._file.close()
        return sum(cut.written for cut in self._cuts)

    async def _fresh(self, cut: Cut) -> AsyncGenerator[bytes, None]:
        if cut.ended:
            async with aclosing(lines_from(self._services, cut, cut.written)) as lines:
                async for line in lines:
                    yield line
            self._complete.add(cut.batch or "")
            return
        batch = await batch_of(self._services, cut)
        seen = self._seen.setdefault(batch.id, _Seen())
        try:
            page = await self._services.store.blocks(batch.workspace, batch.id, seen.last, PAGE_BLOCKS)
        except BlocksMoved:  # the batch has ended meanwhile; the next look goes on by the bytes written
            return
        fresh = seen.pass_over(page, cut.written)
        async with aclosing(block_steps(_each(fresh), self._services.objects, 0, None)) as steps:
            async for step in steps:
                yield (await step.read()).data


class _Seen:
    """How far a running batch's blocks were followed: the last one, and the bytes up to it."""

    def __init__(self) -> None:
        self.last: StoredBlock | None = None
        self._bytes = 0

    def pass_over(self, page: Sequence[StoredBlock], written: int) -> list[StoredBlock]:
        """Take note of a page; returns those of its blocks that are not in the output yet."""
        fresh = []
        for block in page:
            self.last = block
            self._bytes += sent_length(block)
            if self._bytes > written:
                fresh.append(block)
        return fresh


async def _each(blocks: Sequence[StoredBlock]) -> AsyncGenerator[StoredBlock, None]:
    for block in blocks:
        yield block
