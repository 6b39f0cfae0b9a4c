"""Merging the results of ended batches: a run of slow replies leaves them in thousands of small segments.

A step takes the first unmerged blocks of one batch, proves each, and writes their accepted lines as one segment of
large blocks; then one transaction lets it take their place. Invariant ended-is-final: the results are the same bytes
before and after. Memory is bounded by a step, whatever the size of the batch. Each step has a session of its own,
whose row says that its segment is not dead yet: whatever fails in between, the session passes and the sweep finds the
segment. Nothing is deleted here: segments that a merge emptied are purged an hour later, for downloads under way.
Proof: `tests/upkeep/test_merge.py`.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from lowtide import faults
from lowtide.domain.checksum import checksum, prove
from lowtide.domain.errors import ObjectDamaged, ObjectMissing, StoreUnavailable
from lowtide.ports.metadata import MERGER, Block, Merge, MetadataStore, Session, StoredBlock, Unmerged
from lowtide.ports.objects import ObjectRange, ObjectStore
from lowtide.upkeep.objects import SEGMENTS

_log = structlog.get_logger()

MERGED_BLOCKS_MIN = 64
AVERAGE_LENGTH_MAX = 256 * 1024
"""Blocks that are larger on average are read nearly as fast as merged ones."""

STEP_BYTES_MAX = 8 * 1024 * 1024
STEP_BLOCKS_MAX = 2048
"""One transaction: about 30 ms of SQLite's writer."""

_BLOCK_BYTES_MAX = 1024 * 1024
_READ_BLOCKS = 128
"""Blocks read and proved at a time: the calls that this process answers wait for no more than that."""

_LEASE_S = 60.0

PUT_MERGED = faults.point("upkeep.put_merged", "a merged segment is put; no row speaks of it yet")


class Merger:
    """Merges batches of at least `blocks_min` small blocks, one segment a step."""

    def __init__(self, store: MetadataStore, objects: ObjectStore, blocks_min: int) -> None:
        self._store = store
        self._objects = objects
        self._blocks_min = blocks_min

    async def step(self) -> bool:
        """Merge the first blocks of the next batch, or note that it needs no merge; returns whether it did."""
        found = await self._store.find_unmerged(STEP_BLOCKS_MAX)
        if found is None:
            return False
        session = await self._store.open_session(MERGER, _LEASE_S)
        try:
            return await self._merge(found, session)
        finally:
            with contextlib.suppress(StoreUnavailable):
                await self._store.end_session(session.id)

    async def _merge(self, found: Unmerged, session: Session) -> bool:
        taken = _first_of(found.blocks) if self._is_worth(found) else ()
        try:
            made = await self._read(found.batch_key, taken)
        except (ObjectDamaged, ObjectMissing) as error:
            _log.error("upkeep.merge_damaged", batch=found.batch_id, reason=str(error))
            taken, made = (), _Made(found.batch_key)
        key = f"{SEGMENTS}{session.id}/1"
        if taken:
            with PUT_MERGED:
                await self._objects.put(key, made.pieces)
        merge = Merge(
            session=session.id,
            number=1,
            segment_key=key,
            segment_length=made.length,
            batch_key=found.batch_key,
            generation=found.generation,
            taken=taken,
            blocks=made.blocks,
            done=not taken or len(taken) == found.count,
        )
        stood = await self._store.merge(merge)
        if taken:
            _log.info("upkeep.merged", batch=found.batch_id, stood=stood, blocks=len(taken), length=made.length)
        return stood

    def _is_worth(self, found: Unmerged) -> bool:
        """Judge a batch as a whole, before its first merge; one that has begun goes on to its end."""
        if found.generation:
            return found.count > 0
        return found.count >= self._blocks_min and found.length <= found.count * AVERAGE_LENGTH_MAX

    async def _read(self, batch_key: int, taken: Sequence[StoredBlock]) -> "_Made":
        """Return the accepted lines of blocks, each of them proved; raises ObjectDamaged and ObjectMissing."""
        made = _Made(batch_key)
        for start in range(0, len(taken), _READ_BLOCKS):
            some = taken[start : start + _READ_BLOCKS]
            found = await self._objects.read_many([ObjectRange(it.key, it.offset, it.length) for it in some])
            for block, data in zip(some, found, strict=True):
                prove(data, block.checksum, block.key, block.offset)
                made.add(_accepted(block, data))
        made.cut()
        return made


@dataclass
class _Made:
    """A segment in the making: its pieces, one for each block."""

    batch_key: int
    length: int = 0
    pieces: list[bytes] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    _open: list[bytes] = field(default_factory=list)
    _open_length: int = 0

    def add(self, lines: Iterable[bytes]) -> None:
        """Add whole lines, to the last block or to one of their own."""
        for some in lines:
            if self._open_length + len(some) > _BLOCK_BYTES_MAX:
                self.cut()
            self._open.append(some)
            self._open_length += len(some)

    def cut(self) -> None:
        """End the last block."""
        if not self._open:
            return
        data = b"".join(self._open)
        self.blocks.append(Block(self.batch_key, self.length, len(data), data.count(b"\n"), checksum(data)))
        self.pieces.append(data)
        self.length += len(data)
        self._open, self._open_length = [], 0


def _first_of(blocks: Sequence[StoredBlock]) -> Sequence[StoredBlock]:
    """Return as many of the blocks as make a segment, at least one."""
    length = 0
    for number, block in enumerate(blocks):
        length += block.length
        if number and length > STEP_BYTES_MAX:
            return blocks[:number]
    return blocks


def _accepted(block: StoredBlock, data: bytes) -> Iterator[bytes]:
    for start, length in block.pieces:
        yield data[start : start + length]
