"""Merging: the blocks of a batch that has ended are replaced by fewer ones with the same lines in the same order.

Invariants ended-is-final and n-in-n-out: the merged segment and the end of the blocks it was made from are one
transaction. It is guarded by the batch's generation (two upkeeps read the same blocks: one of them wins), by the batch
still being there (a delete or a retirement in between wins), and by the session's row: while it stands nobody may call
the segment's object dead, and once it is gone the merge is refused. Parts stay, as the record of who resolved what.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Integer, bindparam, delete, false, func, insert, select, update
from sqlalchemy import tuple_ as row_of

from lowtide.ports.metadata import Merge, Unmerged
from lowtide.storage import purging, reading
from lowtide.storage.commits import ADD_SEGMENT
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import COMMITTED, ENDED, MERGED, batch, block, session

_here = (batch.c.archived_us.is_(None), batch.c.deleted_us.is_(None))
FIND_MERGING = (
    select(batch.c.key, batch.c.id, batch.c.generation)
    .where(batch.c.state == ENDED, batch.c.merged == false(), *_here)
    .order_by(batch.c.key)
    .limit(1)
)
MEASURE = select(func.count().label("blocks"), func.coalesce(func.sum(block.c.length), 0).label("length")).where(
    block.c.batch_key == bindparam("batch_key"), block.c.place == COMMITTED
)
FIND_SESSION = select(session.c.id).where(session.c.id == bindparam("of_session")).with_for_update(read=True)
MOVE: Any = (
    update(batch)
    .values(generation=batch.c.generation + bindparam("moves", type_=Integer), merged=bindparam("done", type_=Boolean))
    .where(batch.c.key == bindparam("of_batch"), batch.c.generation == bindparam("of_generation"))
    .where(batch.c.state == ENDED, *_here)
    .returning(batch.c.key)
)

_INT = BigInteger()
_taken = records(("segment", _INT), ("offset", _INT))
REMOVE = (
    delete(block)
    .where(row_of(block.c.segment, block.c.offset).in_(select(_taken.c.segment, _taken.c.offset)))
    .where(block.c.batch_key == bindparam("of_batch"))
    .returning(block.c.segment)
)
_COLUMNS = (("offset", _INT), ("length", _INT), ("lines", Integer()), ("checksum", _INT))
_written = records(*_COLUMNS)
ADD_BLOCKS = insert(block).from_select(
    ["segment", "batch_key", "refused", "place", *(name for name, _ in _COLUMNS)],
    select(
        bindparam("of_segment", type_=_INT),
        bindparam("of_batch", type_=_INT),
        false(),
        MERGED,
        *(_written.c[name] for name, _ in _COLUMNS),
    ),
)


def find_unmerged(conn: Connection, limit: int) -> Unmerged | None:
    """Return the oldest batch that may be worth a merge, with its first unmerged blocks."""
    found = conn.execute(FIND_MERGING).one_or_none()
    if found is None:
        return None
    all_of_it = conn.execute(MEASURE, {"batch_key": found.key}).one()
    blocks = reading.page(conn, found.key, found.generation, (1, -1, -1), limit)
    return Unmerged(found.key, found.id, found.generation, all_of_it.blocks, all_of_it.length, blocks)


def merge(conn: Connection, now: Moment, new: Merge) -> bool:
    """Put a merged segment in the place of the blocks it was made from, if nothing came between."""
    if conn.execute(FIND_SESSION, {"of_session": new.session}).first() is None:
        return False
    values = {"of_batch": new.batch_key, "of_generation": new.generation, "moves": bool(new.taken), "done": new.done}
    if conn.execute(MOVE, values).first() is None:
        return False
    if new.taken:
        _replace(conn, now, new)
    return True


def _replace(conn: Connection, now: Moment, new: Merge) -> None:
    taken = packed((it.segment, it.offset) for it in new.taken)
    emptied = conn.execute(REMOVE, {"rows": taken, "of_batch": new.batch_key}).scalars().all()
    if len(emptied) != len(new.taken):
        raise ValueError("a merge takes blocks of one batch, as they were found")
    values = {
        "session": new.session,
        "number": new.number,
        "object_key": new.segment_key,
        "length": new.segment_length,
        "ended": "[]",
    }
    key = conn.execute(ADD_SEGMENT, values).scalar_one()
    rows = packed((it.offset, it.length, it.lines, it.checksum) for it in new.blocks)
    conn.execute(ADD_BLOCKS, {"of_segment": key, "of_batch": new.batch_key, "rows": rows})
    purging.empty_segments(conn, now, emptied)
