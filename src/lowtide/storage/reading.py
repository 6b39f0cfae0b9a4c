"""Results as rows: which bytes of which segments, and which chunks imply their lines.

A page is one read that holds nothing afterwards. A batch whose rows upkeep has begun to remove has no results: a page
of it is an error, never an empty page, which a reader would take for the end.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, bindparam, select, tuple_

from lowtide.domain.errors import BlocksMoved, ObjectMissing
from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import Closing, StoredBlock
from lowtide.storage.tables import batch, block, chunk, part, segment

FIND_READABLE = select(batch.c.key, batch.c.generation).where(
    batch.c.id == bindparam("id"), batch.c.workspace == bindparam("workspace"), batch.c.purge == 0
)
BLOCKS = (
    select(block.c.place, block.c.segment, segment.c.object_key)
    .add_columns(block.c.offset, block.c.length, block.c.checksum, block.c.lines, block.c.refused)
    .join(segment, segment.c.key == block.c.segment)
    .where(block.c.batch_key == bindparam("batch_key"))
    .where(
        tuple_(block.c.place, block.c.segment, block.c.offset)
        > tuple_(
            bindparam("place", type_=Integer),
            bindparam("segment", type_=BigInteger),
            bindparam("offset", type_=BigInteger),
        )
    )
    .order_by(block.c.place, block.c.segment, block.c.offset)
    .limit(bindparam("rows"))
)
PARTS_INSIDE = (
    select(part.c.offset, part.c.length)
    .where(part.c.segment == bindparam("segment"), part.c.offset < bindparam("end"))
    .where(part.c.offset + part.c.length > bindparam("start"), part.c.length > 0)
    .order_by(part.c.offset)
)
CLOSINGS = (
    select(chunk)
    .where(chunk.c.batch_key == bindparam("batch_key"), chunk.c.closing.is_not(None), chunk.c.key > bindparam("after"))
    .order_by(chunk.c.key)
    .limit(bindparam("rows"))
)


def blocks(
    conn: Connection, workspace: str, batch_id: str, after: StoredBlock | None, limit: int
) -> Sequence[StoredBlock]:
    """Return a page of a batch's blocks in the order of (place, segment, offset)."""
    key, generation = _readable(conn, workspace, batch_id)
    if after is None:
        return page(conn, key, generation, (-1, -1, -1), limit)
    if after.generation != generation:
        raise BlocksMoved(f"the blocks of batch {batch_id} were merged")
    return page(conn, key, generation, (after.place, after.segment, after.offset), limit)


def page(
    conn: Connection, batch_key: int, generation: int, after: tuple[int, int, int], limit: int
) -> Sequence[StoredBlock]:
    """Return a page of a batch's blocks behind the (place, segment, offset) given."""
    place, segment_key, offset = after
    values = {"batch_key": batch_key, "place": place, "segment": segment_key, "offset": offset, "rows": limit}
    return [_to_block(conn, generation, row) for row in conn.execute(BLOCKS, values).all()]


def closings(conn: Connection, workspace: str, batch_id: str, after: int, limit: int) -> Sequence[Closing]:
    """Return a page of the chunks whose outstanding requests ended together."""
    key, _ = _readable(conn, workspace, batch_id)
    rows = conn.execute(CLOSINGS, {"batch_key": key, "after": after, "rows": limit})
    return [
        Closing(
            chunk=row.key,
            offset=row.offset,
            head_length=row.head_length,
            head_checksum=row.head_checksum,
            size=row.size,
            resolved=row.resolved,
            outcome=Outcome(row.closing),
            error=None if row.closing_error is None else row.closing_error.encode(),
        )
        for row in rows
    ]


def _readable(conn: Connection, workspace: str, batch_id: str) -> tuple[int, int]:
    found = conn.execute(FIND_READABLE, {"id": batch_id, "workspace": workspace}).one_or_none()
    if found is None:
        raise ObjectMissing(f"batch {batch_id} has no results")
    return int(found.key), int(found.generation)


def _to_block(conn: Connection, generation: int, row: Sequence[Any]) -> StoredBlock:
    """Return a row as a block; unpacked in one go, since a download of small segments meets thousands of them."""
    place, segment_key, object_key, offset, length, digest, lines, has_refused = row
    pieces = _accepted_pieces(conn, segment_key, offset, length) if has_refused else ((0, length),)
    return StoredBlock(generation, place, segment_key, object_key, offset, length, digest, pieces, lines)


def _accepted_pieces(conn: Connection, segment_key: int, offset: int, length: int) -> Sequence[tuple[int, int]]:
    """Return the ranges of the block's accepted parts, cut to the block and joined where they touch."""
    values = {"segment": segment_key, "start": offset, "end": offset + length}
    joined: list[tuple[int, int]] = []
    for found in conn.execute(PARTS_INSIDE, values):
        start = max(found.offset - offset, 0)
        end = min(found.offset + found.length - offset, length)
        if joined and joined[-1][0] + joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end - joined[-1][0])
        else:
            joined.append((start, end - start))
    return joined
