"""Ending what no worker ends: chunks of canceling batches, batches past their time, and the end that a fault left out.

None of them writes a row or a line per request: a chunk's closing says what became of its outstanding requests.
Expiry fences: it raises the attempt of every chunk that is not closed, so that nothing arrives after the end.
"""

from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, case, exists, null, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from lowtide.domain.outcomes import Outcome
from lowtide.storage import endings
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import CANCELING, CLOSED, ENDED, OPEN, batch, chunk

FIND_CANCELED_CHUNKS = (
    select(chunk.c.key)
    .where(chunk.c.batch_key.in_(select(batch.c.key).where(batch.c.state == CANCELING)))
    .where(chunk.c.state == OPEN, chunk.c.state != CLOSED)
    .limit(bindparam("rows"))
)
_canceled = records(("chunk", BigInteger()))
CLOSE: ReturningUpdate[Any] = (
    update(chunk)
    .values(state=CLOSED, closing=Outcome.CANCELED.value)
    .where(chunk.c.key == _canceled.c.chunk, chunk.c.state == OPEN)
    .returning(chunk.c.batch_key)
)

FIND_EXPIRED = (
    select(batch.c.key)
    .where(batch.c.expires_us <= bindparam("now_us"), batch.c.state != ENDED)
    .order_by(batch.c.expires_us)
    .limit(bindparam("rows"))
)
FENCE = (
    update(chunk)
    .values(
        state=CLOSED,
        attempt=chunk.c.attempt + 1,
        session=null(),
        closing=case((batch.c.state == CANCELING, Outcome.CANCELED.value), else_=Outcome.EXPIRED.value),
    )
    .where(chunk.c.batch_key == bindparam("of_batch"), chunk.c.state != CLOSED, batch.c.key == chunk.c.batch_key)
)

FIND_UNENDED = select(batch.c.key).where(
    batch.c.state != ENDED, ~exists().where(and_(chunk.c.batch_key == batch.c.key, chunk.c.state != CLOSED))
)


def close_canceling(conn: Connection, now: Moment, limit: int) -> int:
    """Close open chunks of canceling batches; what is leased is left to its holder."""
    found = conn.execute(FIND_CANCELED_CHUNKS, {"rows": limit}).scalars().all()
    if not found:
        return 0
    closed = conn.execute(CLOSE, {"rows": packed((key,) for key in found)}).scalars().all()
    endings.settle(conn, now, closed)
    return len(closed)


def expire(conn: Connection, now: Moment, limit: int) -> int:
    """End batches past their time: their outstanding requests expire, or are canceled if that came first."""
    keys = conn.execute(FIND_EXPIRED, {"now_us": now.wall_us, "rows": limit}).scalars().all()
    for key in keys:
        conn.execute(FENCE, {"of_batch": key})
    return len(endings.end(conn, now, keys))


def end_check(conn: Connection, now: Moment) -> int:
    """End batches that have no chunk left but were not ended."""
    return len(endings.end(conn, now, conn.execute(FIND_UNENDED).scalars().all()))
