"""The results of a batch that still runs: what was committed so far, portion by portion.

Committed blocks keep their order and none comes before one that was there, so what is served here is the front of the file
that the ended batch has, byte for byte: a position in it is a number of bytes, and holds for good. A portion is bounded;
where the one before it ended is remembered, so that who follows a batch does not make the store count from the start each
time. The memory is bounded, and an aid only.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from lowtide.domain.errors import BlocksMoved
from lowtide.ports.metadata import Batch, MetadataStore, StoredBlock
from lowtide.ports.objects import ObjectStore
from lowtide.results.blocks import PAGE_BLOCKS, block_steps, sent_length, without_front
from lowtide.results.readahead import read_ahead

_MARKS_MAX = 4096
_AHEAD = 1


@dataclass(frozen=True, slots=True)
class Portion:
    """Consecutive bytes of the results: `length` of them from `start`."""

    start: int
    length: int
    _blocks: Sequence[StoredBlock] = field(repr=False)
    _objects: ObjectStore = field(repr=False)

    @property
    def end(self) -> int:
        return self.start + self.length

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes; raises ObjectDamaged, ObjectMissing or StoreUnavailable, always before a wrong one."""
        steps = block_steps(_each(self._blocks), self._objects, 0, None)
        async with aclosing(read_ahead(steps, _AHEAD)) as stretches:
            async for _, stretch in stretches:
                if stretch.data:
                    yield stretch.data


class ResultsSoFar:
    """Opens the results of batches that run."""

    def __init__(self, store: MetadataStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._marks: OrderedDict[tuple[str, int], StoredBlock] = OrderedDict()

    async def open(self, batch: Batch, after: int) -> Portion | None:
        """Return what follows the first `after` bytes, up to PAGE_BLOCKS blocks; None when there are not so many."""
        try:
            return await self._open(batch, after, self._marks.get((batch.id, after)))
        except BlocksMoved:
            return await self._open(batch, after, None)

    async def _open(self, batch: Batch, after: int, mark: StoredBlock | None) -> Portion | None:
        at = 0 if mark is None else after
        while True:
            page = await self._store.blocks(batch.workspace, batch.id, mark, PAGE_BLOCKS)
            kept = [*page]
            while kept and at + sent_length(kept[0]) <= after:
                at += sent_length(kept.pop(0))
            if kept or len(page) < PAGE_BLOCKS:
                break
            mark = page[-1]
        if at < after and not kept:
            return None
        if at < after:
            kept[0] = without_front(kept[0], after - at)
        portion = Portion(after, sum(map(sent_length, kept)), kept, self._objects)
        if page:
            self._remember(batch.id, portion.end, page[-1])
        return portion

    def _remember(self, batch_id: str, end: int, last: StoredBlock) -> None:
        self._marks[batch_id, end] = last
        self._marks.move_to_end((batch_id, end))
        if len(self._marks) > _MARKS_MAX:
            self._marks.popitem(last=False)


async def _each(blocks: Sequence[StoredBlock]) -> AsyncGenerator[StoredBlock, None]:
    for block in blocks:
        yield block
