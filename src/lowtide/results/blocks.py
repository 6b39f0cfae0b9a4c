"""The first stretches of the results: the blocks that workers committed, in their fixed order.

A block is read whole and proves itself against its row before a byte of it goes out; then its accepted pieces are
sent, what a commit refused stays behind (one-winner). Blocks in front of a wanted range are skipped by their rows,
unread. Nothing of the database is held between pages, so a merge may move the blocks between two of them: the bytes
are the same then, and the next page is found by how many were given.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from lowtide.domain.checksum import prove
from lowtide.domain.errors import BlocksMoved
from lowtide.ports.metadata import Batch, MetadataStore, StoredBlock
from lowtide.ports.objects import ObjectRange, ObjectStore
from lowtide.results.fetch import fetch
from lowtide.results.readahead import Step, Stretch

PAGE_BLOCKS = 512
_STEP_BYTES_MAX = 512 * 1024
_STEP_BLOCKS_MAX = 256


async def pages(store: MetadataStore, batch: Batch, first: Sequence[StoredBlock]) -> AsyncGenerator[StoredBlock, None]:
    """Yield the blocks of a batch in their fixed order; `first` is the first page, already read.

    After a merge the first block may be one whose front was given before: it is yielded without that.
    """
    page, given, skip = first, 0, 0
    while page:
        for block in page:
            length = sent_length(block)
            if skip >= length:
                skip -= length
                continue
            yield without_front(block, skip) if skip else block
            given += length - skip
            skip = 0
        if len(page) < PAGE_BLOCKS:
            return
        try:
            page = await store.blocks(batch.workspace, batch.id, page[-1], PAGE_BLOCKS)
        except BlocksMoved:
            page, skip = await store.blocks(batch.workspace, batch.id, None, PAGE_BLOCKS), given


def sent_length(block: StoredBlock) -> int:
    """Return how many bytes of the results this block gives."""
    if len(block.pieces) == 1:
        return block.pieces[0][1]
    return sum(length for _, length in block.pieces)


def without_front(block: StoredBlock, skip: int) -> StoredBlock:
    """Return a block that gives `skip` bytes less, at its front."""
    pieces: list[tuple[int, int]] = []
    for start, length in block.pieces:
        dropped = min(skip, length)
        skip -= dropped
        if dropped < length:
            pieces.append((start + dropped, length - dropped))
    return replace(block, pieces=pieces)


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
        prove(view, block.checksum, block.key, block.offset)
        if sent_length(block) == block.length:
            pieces.append(view)
            lines += block.lines
        else:
            sent = [view[start : start + length] for start, length in block.pieces]
            pieces += sent
            lines += sum(bytes(piece).count(b"\n") for piece in sent)
    return Stretch(b"".join(pieces), lines)
