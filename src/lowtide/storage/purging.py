"""What leaves: batches archived and deleted, their rows, and the objects that rows prove dead.

Only rows doom an object, and the row that kept it goes in the same transaction. A batch's rows go in steps of a bounded
size; from the first on its results are gone for readers. The batch row itself stays while it can be listed, and in any
case for the day in which its create may be repeated.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)

from lowtide.domain.times import DAY_US
from lowtide.ports.metadata import Doomed
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import ENDED, PURGED, batch, block, chunk, creation, doomed, part, segment, session, upload

STEP_ROWS = 1000
CREATION_KEPT_US = DAY_US
UPLOAD_STALE_US = DAY_US

FIND_RETIRING = (
    select(batch.c.key)
    .where(batch.c.state == ENDED, batch.c.archived_us.is_(None), batch.c.deleted_us.is_(None))
    .where(batch.c.created_us <= bindparam("until_us"))
    .order_by(batch.c.created_us)
    .limit(bindparam("rows"))
)
RETIRE = update(batch).values(archived_us=bindparam("now_us")).where(batch.c.key == bindparam("of_batch"))

_droppable = and_(batch.c.deleted_us.is_not(None), batch.c.created_us <= bindparam("repeatable_us"))
FIND_LEAVING: Select[Any] = (
    select(
        union_all(
            select(batch.c.key).where(batch.c.archived_us <= bindparam("until_us"), batch.c.purge != PURGED),
            select(batch.c.key).where(
                batch.c.deleted_us <= bindparam("until_us"), or_(batch.c.purge != PURGED, _droppable)
            ),
        )
        .subquery()
        .c.key
    )
    .distinct()
    .limit(bindparam("rows"))
)
BEGIN_PURGE = update(batch).values(purge=1).where(batch.c.key == bindparam("of_batch"), batch.c.purge == 0)
END_PURGE = (
    update(batch)
    .values(purge=PURGED)
    .where(batch.c.key == bindparam("of_batch"), batch.c.purge != PURGED)
    .returning(batch.c.request_key)
)
FIND_DROPPABLE = select(batch.c.key).where(batch.c.key == bindparam("of_batch"), _droppable)
DROP_CREATIONS = delete(creation).where(creation.c.batch_key == bindparam("of_batch"))
DROP_BATCH = delete(batch).where(batch.c.key == bindparam("of_batch"))

_keys = records(("key", BigInteger()))
_listed = select(_keys.c.key)
FIND_CHUNKS = (
    select(chunk.c.key)
    .where(chunk.c.batch_key == bindparam("of_batch"))
    .order_by(chunk.c.key)
    .limit(bindparam("rows_max"))
)
DROP_PARTS = delete(part).where(part.c.chunk.in_(_listed)).returning(part.c.segment)
DROP_CHUNKS = delete(chunk).where(chunk.c.key.in_(_listed))
DROP_BLOCKS = (
    delete(block)
    .where(
        tuple_(block.c.segment, block.c.offset).in_(
            select(block.c.segment, block.c.offset)
            .where(block.c.batch_key == bindparam("of_batch"))
            .limit(bindparam("rows_max"))
        )
    )
    .returning(block.c.segment)
)
DROP_SEGMENTS = (
    delete(segment)
    .where(segment.c.key.in_(_listed))
    .where(~exists().where(block.c.segment == segment.c.key), ~exists().where(part.c.segment == segment.c.key))
    .returning(segment.c.object_key, segment.c.gone)
)
EMPTY_SEGMENTS = (
    update(segment)
    .values(emptied_us=bindparam("now_us"))
    .where(segment.c.key == _keys.c.key, ~exists().where(block.c.segment == segment.c.key))
)
TAKE_EMPTIED = (
    update(segment)
    .values(emptied_us=null(), gone=true())
    .where(
        segment.c.key.in_(
            select(segment.c.key).where(segment.c.emptied_us <= bindparam("until_us")).limit(bindparam("rows_max"))
        )
    )
    .returning(segment.c.object_key)
)

TAKE_STALE_UPLOADS = (
    delete(upload)
    .where(
        upload.c.id.in_(
            select(upload.c.id)
            .where(or_(upload.c.abandoned, upload.c.created_us <= bindparam("until_us")))
            .limit(bindparam("rows_max"))
        )
    )
    .returning(upload.c.request_key)
)

_object_keys = records(("key", Text()))
DOOM = insert(doomed).from_select(["key"], select(_object_keys.c.key))
FIND_DOOMED = select(doomed.c.key).limit(bindparam("rows"))
FORGET = delete(doomed).where(doomed.c.key.in_(select(_object_keys.c.key)))

_put = records(("key", Text()), ("session", Text()))
FIND_DEAD = select(_put.c.key).where(
    ~exists().where(segment.c.object_key == _put.c.key), ~exists().where(session.c.id == _put.c.session)
)


def retire(conn: Connection, now: Moment, retention_us: int, limit: int) -> int:
    """Archive ended batches made longer than `retention_us` ago."""
    until_us = now.wall_us - retention_us
    keys = conn.execute(FIND_RETIRING, {"until_us": until_us, "rows": limit}).scalars().all()
    for key in keys:
        conn.execute(RETIRE, {"of_batch": key, "now_us": now.wall_us})
    return len(keys)


def leaving(conn: Connection, now: Moment, grace_us: int, limit: int) -> Sequence[int]:
    """Return the keys of batches whose grace is over and of which something is still here."""
    times = {"until_us": now.wall_us - grace_us, "repeatable_us": now.wall_us - CREATION_KEPT_US}
    return conn.execute(FIND_LEAVING, times | {"rows": limit}).scalars().all()


def purge_step(conn: Connection, now: Moment, batch_key: int) -> tuple[int, bool]:
    """Remove up to STEP_ROWS rows of each kind of a batch.

    Returns how many objects that doomed, and whether the batch is done.
    """
    step = {"of_batch": batch_key, "rows_max": STEP_ROWS}
    conn.execute(BEGIN_PURGE, {"of_batch": batch_key})
    chunks = conn.execute(FIND_CHUNKS, step).scalars().all()
    rows = {"rows": packed((key,) for key in chunks)}
    segments = set(conn.execute(DROP_PARTS, rows).scalars())
    conn.execute(DROP_CHUNKS, rows)
    blocks = conn.execute(DROP_BLOCKS, step).scalars().all()
    segments.update(blocks)
    dropped = conn.execute(DROP_SEGMENTS, {"rows": packed((key,) for key in segments)}).all()
    objects = [row.object_key for row in dropped if not row.gone]
    empty_segments(conn, now, blocks)
    done = max(len(chunks), len(blocks)) < STEP_ROWS
    if done:
        objects += conn.execute(END_PURGE, {"of_batch": batch_key}).scalars()
        _drop(conn, now, batch_key)
    _doom(conn, objects)
    return len(objects), done


def doom_unused(conn: Connection, now: Moment, grace_us: int, limit: int) -> int:
    """Doom the objects of abandoned and stale uploads, and of segments that were emptied longer than `grace_us` ago.

    The rows of uploads go, so that no create can take them any more. Those of segments stay: parts refer to them.
    """
    stale = {"until_us": now.wall_us - UPLOAD_STALE_US, "rows_max": limit}
    emptied = {"until_us": now.wall_us - grace_us, "rows_max": STEP_ROWS}
    objects = [*conn.execute(TAKE_STALE_UPLOADS, stale).scalars(), *conn.execute(TAKE_EMPTIED, emptied).scalars()]
    _doom(conn, objects)
    return len(objects)


def empty_segments(conn: Connection, now: Moment, keys: Sequence[int]) -> None:
    """Note which of these segments, some of whose blocks just went, have none left: downloads may still read them."""
    conn.execute(EMPTY_SEGMENTS, {"rows": packed((key,) for key in set(keys)), "now_us": now.wall_us})


def find_doomed(conn: Connection, limit: int) -> Sequence[Doomed]:
    """Return objects that may be deleted now."""
    return [Doomed(key) for key in conn.execute(FIND_DOOMED, {"rows": limit}).scalars()]


def forget(conn: Connection, _now: Moment, keys: Sequence[str]) -> None:
    """Drop the rows of objects that are deleted."""
    conn.execute(FORGET, {"rows": packed((key,) for key in keys)})


def dead_segments(conn: Connection, keys: Sequence[str]) -> Sequence[str]:
    """Return the segments that no row records and whose session is past, so that none ever will."""
    put = [(key, names[1]) for key in keys if len(names := key.split("/")) == 3]
    return conn.execute(FIND_DEAD, {"rows": packed(put)}).scalars().all()


def _drop(conn: Connection, now: Moment, batch_key: int) -> None:
    values = {"of_batch": batch_key, "repeatable_us": now.wall_us - CREATION_KEPT_US}
    if conn.execute(FIND_DROPPABLE, values).first() is not None:
        conn.execute(DROP_CREATIONS, {"of_batch": batch_key})
        conn.execute(DROP_BATCH, {"of_batch": batch_key})


def _doom(conn: Connection, objects: Sequence[str]) -> None:
    if objects:
        conn.execute(DOOM, {"rows": packed((key,) for key in objects)})
