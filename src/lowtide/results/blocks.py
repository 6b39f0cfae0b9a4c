"""The first stretches of the results: the blocks that workers committed, in the order of (segment, offset).

A block is read whole and proves itself against its row before a byte of it goes out; then its accepted pieces are
sent, what a commit refused stays behind (one-winner). Blocks in front of a wanted range are skipped by their rows,
unread. Nothing of the database is held between pages.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from lowtide.domain.checksum import checksum
from lowtide.domain.errors import ObjectDamaged
from lowtide.ports.metadata import Batch, MetadataStore, StoredBlock
from lowtide.ports.objects import ObjectRange, ObjectStore
from lowtide.results.fetch import fetch
from lowtide.results.readahead import Step, Stretch

PAGE_BLOCKS = 512
_STEP_BYTES_MAX = 512 * 1024
_STEP_BLOCKS_MAX = 256


async def pages(store: MetadataStore, batch: Batch, first: Sequence[StoredBlock]) -> AsyncGenerator[StoredBlock, None]:
    """Yield the blocks of a batch in their fixed order; `first` is the first page, already read."""
    page = first
    while page:
        for block in page:
            yield block
        if len(page) < PAGE_BLOCKS:
            return
        page = await store.blocks(batch.workspace, batch.id, (page[-1].segment, page[-1].offset), PAGE_BLOCKS)


def sent_length(block: StoredBlock) -> int:
    """Return how many bytes of the results this block gives."""
    if len(block.pieces) == 1:
        return block.pieces[0][1]
    return sum(length for _, length in block.pieces)


async def block_steps(
    blocks: AsyncGenerator[StoredBlock, None], objects: ObjectStore, start: int, end: int | None
) -> AsyncGenerator[Step, None]:
    """Yield the steps that hold bytes from `start` to `end`, small blocks together; then an empty one at their end."""
    at = group_at = group_bytes = 0
    group: list[StoredBlock] = []
    async with aclosing(blocks):
        async for block in blocks:
            if end is not None and at >= end:
                break
            length = sent_length(block)
            if length and at + length > start:
                if len(group) == _STEP_BLOCKS_MAX or (group and group_bytes + block.length > _STEP_BYTES_MAX):
                    yield Step(group_at, partial(_read, objects, group))
                    group, group_bytes = [], 0
                if not group:
                    group_at = at
                group.append(block)
                group_bytes += block.length
            at += length
    if group:
        yield Step(group_at, partial(_read, objects, group))
    yield Step(at, _nothing)


async def _nothing() -> Stretch:
    return Stretch(b"", 0)


async def _read(objects: ObjectStore, blocks: Sequence[StoredBlock]) -> Stretch:
    """Read blocks, prove each one, and join what of them is sent."""
    found = await fetch(objects, [ObjectRange(block.key, block.offset, block.length) for block in blocks])
    pieces: list[memoryview] = []
    lines = 0
    for block, view in zip(blocks, found, strict=True):
        if checksum(view) != block.checksum:
            message = f"the block at {block.offset} of {block.key} does not match its checksum"
            raise ObjectDamaged(message)
        if sent_length(block) == block.length:
            pieces.append(view)
            lines += block.lines
        else:
            sent = [view[start : start + length] for start, length in block.pieces]
            pieces += sent
            lines += sum(bytes(piece).count(b"\n") for piece in sent)
    return Stretch(b"".join(pieces), lines)
