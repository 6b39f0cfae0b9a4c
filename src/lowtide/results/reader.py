"""The results of a batch, as a file: one fixed order of bytes, readable from anywhere, at constant memory.

The file is the batch's blocks in the order in which they were committed, then the lines that closings imply, in the
order of the plan. Both are settled when the batch ends, so the file never changes after (ended-is-final). It holds
exactly one line per request (n-in-n-out): a download of the whole file counts them, and whatever is missing, damaged
or short raises, so that the door aborts the stream and no client takes a short file for a whole one.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from lowtide.domain.checksum import checksum
from lowtide.domain.errors import ObjectMissing
from lowtide.ports.metadata import Batch, MetadataStore, StoredBlock
from lowtide.ports.objects import ObjectStore
from lowtide.results.blocks import PAGE_BLOCKS, block_steps, pages, sent_length
from lowtide.results.closings import closing_steps
from lowtide.results.readahead import Step, read_ahead
from lowtide.results.sofar import Portion, ResultsSoFar

_AHEAD = 1
"""Stretches read ahead of the one that goes out, of about 0.5 MiB (1 MiB where blocks are that large). More of them
made downloads of small segments slower by a third: their threads wait for each other, and their memory leaves the
processor's cache (`bench/p5_results.py`)."""

_SIZES_MAX = 1024


class Results:
    """Opens the results of batches that have ended. The caller judges who may see them, and until when."""

    def __init__(self, store: MetadataStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._so_far = ResultsSoFar(store, objects)

    async def open(self, batch: Batch) -> "ResultsFile":
        """Return the results of a batch that has ended.

        The first page of rows is read here: StoreUnavailable can still be answered, before the head of a reply is out.
        """
        first = await self._store.blocks(batch.workspace, batch.id, None, PAGE_BLOCKS)
        return ResultsFile(batch, self._store, self._objects, first, self._sizes)

    async def so_far(self, batch: Batch, after: int) -> Portion | None:
        """Return what a batch that runs has behind the first `after` bytes; None when there are not so many."""
        return await self._so_far.open(batch, after)


class ResultsFile:
    """The results of one batch. Several streams of one file may run at a time."""

    def __init__(
        self,
        batch: Batch,
        store: MetadataStore,
        objects: ObjectStore,
        first: Sequence[StoredBlock],
        sizes: OrderedDict[str, int],
    ) -> None:
        self._batch = batch
        self._store = store
        self._objects = objects
        self._first = first
        self._sizes = sizes

    @property
    def etag(self) -> str:
        """A strong entity tag, quoted. It rests on what the end of the batch settled, not on how segments lie."""
        batch = self._batch
        settled = f"{batch.id} {batch.created_us} {batch.ended_us} {batch.counts}"
        return f'"{batch.id}-{checksum(settled.encode()) & 0xFFFFFFFFFFFFFFFF:016x}"'

    async def size(self) -> int:
        """Return the length of the whole file; blocks are counted by their rows, derived lines have to be made."""
        batch_id = self._batch.id
        if batch_id not in self._sizes:
            self._sizes[batch_id] = await self._measure()
            if len(self._sizes) > _SIZES_MAX:
                self._sizes.popitem(last=False)
        return self._sizes[batch_id]

    async def _measure(self) -> int:
        length = 0
        async with aclosing(pages(self._store, self._batch, self._first)) as blocks:
            async for block in blocks:
                length += sent_length(block)
        closings = closing_steps(self._store, self._objects, self._batch)
        async with aclosing(read_ahead(closings, _AHEAD)) as stretches:
            async for _, stretch in stretches:
                length += len(stretch.data)
        return length

    async def stream(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` up to `end` (the end of the file where None), in pieces of up to about 1 MiB.

        Raises ObjectDamaged, ObjectMissing or StoreUnavailable, always before a wrong byte. Closing the iterator ends
        all reading.
        """
        if end is not None and end <= start:
            return
        at = lines = 0
        async with aclosing(read_ahead(self._steps(start, end), _AHEAD)) as stretches:
            async for place, stretch in stretches:
                at = at if place is None else place
                piece = _cut(stretch.data, start - at, None if end is None else end - at)
                at += len(stretch.data)
                lines += stretch.lines
                if piece:
                    yield piece
                if end is not None and at >= end:
                    return
        self._settle(start, end, lines)

    async def _steps(self, start: int, end: int | None) -> AsyncGenerator[Step, None]:
        blocks = pages(self._store, self._batch, self._first)
        reached = 0
        async with aclosing(block_steps(blocks, self._objects, start, end)) as steps:
            async for step in steps:
                reached = step.at or 0
                yield step
        if end is None or reached < end:
            async with aclosing(closing_steps(self._store, self._objects, self._batch)) as steps:
                async for step in steps:
                    yield step

    def _settle(self, start: int, end: int | None, lines: int) -> None:
        """Refuse to end where something is missing, though every byte so far was right."""
        if end is not None:
            message = f"the results of {self._batch.id} end before byte {end}"
            raise ObjectMissing(message)
        if start == 0 and lines != self._batch.counts.total:
            message = f"the results of {self._batch.id} have {lines} lines, not {self._batch.counts.total}"
            raise ObjectMissing(message)


def _cut(data: bytes, start: int, end: int | None) -> bytes:
    """Return the part of a stretch that is wanted; the whole of it costs no copy."""
    if start <= 0 and (end is None or end >= len(data)):
        return data
    return data[max(start, 0) : end]
