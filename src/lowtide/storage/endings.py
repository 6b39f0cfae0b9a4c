"""The one end of a batch: counting its open chunks down, and writing its counts when none is left.

Every operation that closes chunks calls `settle` in its own transaction. A batch ends by the counter that it locks, not
by asking whether an open chunk exists: two last commits can both see one, and the batch would never end. Lock order:
the chunks first, then the batch, in order of keys.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, bindparam, case, func, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from lowtide.domain.outcomes import Outcome
from lowtide.ports.report import RESULTS, Count
from lowtide.storage import counters
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import ENDED, batch, chunk

USAGE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

_closed = records(("batch_key", BigInteger()), ("chunks", BigInteger()))
COUNT_DOWN: ReturningUpdate[Any] = (
    update(batch)
    .values(open_chunks=batch.c.open_chunks - _closed.c.chunks)
    .where(batch.c.key == _closed.c.batch_key)
    .returning(batch.c.key, batch.c.open_chunks)
)


def outstanding(outcome: Outcome) -> ColumnElement[int]:
    """Return how many requests of a batch its chunks' closings give this outcome."""
    rest = chunk.c.size - chunk.c.succeeded - chunk.c.errored
    return func.coalesce(func.sum(case((chunk.c.closing == outcome.value, rest), else_=0)), 0)


_sums = (
    select(
        chunk.c.batch_key,
        func.sum(chunk.c.succeeded).label("succeeded"),
        (func.sum(chunk.c.errored) + outstanding(Outcome.ERRORED)).label("errored"),
        outstanding(Outcome.CANCELED).label("canceled"),
        outstanding(Outcome.EXPIRED).label("expired"),
        *(func.sum(chunk.c[name]).label(name) for name in USAGE),
    )
    .where(chunk.c.batch_key == bindparam("batch_key"))
    .group_by(chunk.c.batch_key)
    .subquery("sums")
)
END: ReturningUpdate[Any] = (
    update(batch)
    .values(
        state=ENDED,
        ended_us=bindparam("now_us"),
        open_chunks=0,
        **{name: _sums.c[name] for name in ("succeeded", "errored", "canceled", "expired", *USAGE)},
    )
    .where(batch.c.key == _sums.c.batch_key, batch.c.state != ENDED)
    .returning(batch.c.id, batch.c.canceled, batch.c.expired)
)


def settle(conn: Connection, now: Moment, closed: Iterable[int]) -> list[str]:
    """Count down the batches of chunks just closed (one key per chunk), and end those with none left.

    Returns the ids of the batches that ended.
    """
    chunks = Counter(closed)
    if not chunks:
        return []
    rows = conn.execute(COUNT_DOWN, {"rows": packed(sorted(chunks.items()))}).all()
    return end(conn, now, sorted(row.key for row in rows if row.open_chunks == 0))


def end(conn: Connection, now: Moment, batch_keys: Iterable[int]) -> list[str]:
    """End these batches, all of whose chunks are closed; one that has ended already is left alone.

    What no worker reports is counted here: the requests that were canceled or expired.
    """
    ended = [row for key in batch_keys for row in conn.execute(END, {"batch_key": key, "now_us": now.wall_us})]
    derived = ((Outcome.CANCELED, "canceled"), (Outcome.EXPIRED, "expired"))
    counters.add(
        conn, [Count(RESULTS, (outcome.value,), getattr(row, name)) for row in ended for outcome, name in derived]
    )
    return [row.id for row in ended]
