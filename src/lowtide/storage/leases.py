"""What a worker chooses from, claims and gives back, and what losing a lease does to a chunk.

Invariant one-winner: a claim raises the attempt in the statement that takes the lease, and everything that follows is
guarded by that attempt. Anything that would reopen a chunk of a canceling batch closes it instead.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    case,
    false,
    func,
    null,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from lowtide.domain.limits import LOSSES_MAX
from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import Backlog, Claimed, OpenChunk, Reaped, Returned
from lowtide.storage import batch_rows, endings
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import CANCELING, CLOSED, IN_PROGRESS, LEASED, OPEN, batch, chunk, power_of_two

_suspect = chunk.c.losses >= LOSSES_MAX
_is_open = and_(chunk.c.state == OPEN, chunk.c.state != CLOSED)
"""Both terms: from the second SQLite proves that the partial index of live chunks applies."""

BACKLOGS = (
    select(
        batch.c.key,
        batch.c.id,
        batch.c.workspace,
        batch.c.created_us,
        batch.c.expires_us,
        func.count().label("open"),
        func.sum(case((_suspect, 1), else_=0)).label("suspects"),
    )
    .join(chunk, chunk.c.batch_key == batch.c.key)
    .where(batch.c.state == IN_PROGRESS, _is_open)
    .group_by(batch.c.key)
    .order_by(batch.c.key)
)
_open_chunks = (
    select(chunk.c.key, chunk.c.batch_key, chunk.c.group, chunk.c.model, chunk.c.losses, chunk.c.length)
    .add_columns((chunk.c.size - chunk.c.succeeded - chunk.c.errored).label("outstanding"))
    .where(chunk.c.batch_key == bindparam("batch_key"), _is_open, chunk.c.key > bindparam("after"))
    .order_by(chunk.c.key)
    .limit(bindparam("rows"))
)
OPEN_CHUNKS = _open_chunks.where(~_suspect)
OPEN_SUSPECTS = _open_chunks.where(_suspect)

_wanted = records(("chunk", BigInteger()))
CLAIM = (
    update(chunk)
    .values(
        state=LEASED,
        session=bindparam("by_session"),
        attempt=chunk.c.attempt + 1,
        progressed=false(),
    )
    .where(chunk.c.key == _wanted.c.chunk, chunk.c.state == OPEN)
    .where(batch.c.key == chunk.c.batch_key, batch.c.state == IN_PROGRESS)
)
CLAIMED = (
    select(chunk, batch.c.id.label("batch_id"), batch.c.workspace, batch.c.headers, batch.c.request_key)
    .add_columns(batch.c.expires_us)
    .where(chunk.c.key.in_(select(_wanted.c.chunk)), chunk.c.session == bindparam("by_session"))
    .where(batch.c.key == chunk.c.batch_key)
    .order_by(chunk.c.key)
)


def released(counts: ColumnElement[bool]) -> dict[str, ColumnElement[Any]]:
    """Return what becomes of a leased chunk whose lease ends: open, or closed if its batch is canceling.

    Where `counts` holds and the chunk made no progress it takes a loss; a suspect does not count on, but has the
    request that ran alone, its lowest without a result, condemned.
    """
    full = power_of_two(chunk.c.size) - 1
    free = full.bitwise_and(chunk.c.resolved.bitwise_or(chunk.c.condemned).bitwise_not())
    lost = and_(counts, chunk.c.progressed.is_(False), batch.c.state == IN_PROGRESS)
    return {
        "state": case((batch.c.state == CANCELING, CLOSED), else_=OPEN),
        "closing": case((batch.c.state == CANCELING, Outcome.CANCELED.value), else_=null()),
        "session": null(),
        "losses": chunk.c.losses + case((and_(lost, ~_suspect), 1), else_=0),
        "condemned": case(
            (and_(lost, _suspect), chunk.c.condemned.bitwise_or(free.bitwise_and(-free))), else_=chunk.c.condemned
        ),
    }


_returned = records(("chunk", BigInteger()), ("attempt", BigInteger()), ("tries", Text()), ("lost", Boolean()))
GIVE_BACK: ReturningUpdate[Any] = (
    update(chunk)
    .values(tries=case((_returned.c.tries != "", _returned.c.tries), else_=chunk.c.tries), **released(_returned.c.lost))
    .where(chunk.c.key == _returned.c.chunk, chunk.c.attempt == _returned.c.attempt)
    .where(chunk.c.state == LEASED, func.coalesce(chunk.c.session, "") == bindparam("by_session"))
    .where(batch.c.key == chunk.c.batch_key)
    .returning(chunk.c.batch_key, chunk.c.state, chunk.c.progressed)
)
"""`coalesce` keeps SQLite from walking all that the session holds for each row that is given back."""


def backlogs(conn: Connection) -> Sequence[Backlog]:
    """Return the batches in progress that have open chunks, oldest first."""
    return [
        Backlog(
            batch_id=row.id,
            workspace=row.workspace,
            batch_key=row.key,
            created_us=row.created_us,
            expires_us=row.expires_us,
            open=row.open,
            suspects=row.suspects,
        )
        for row in conn.execute(BACKLOGS)
    ]


def open_chunks(conn: Connection, batch_key: int, after: int, limit: int, *, suspects: bool) -> Sequence[OpenChunk]:
    """Return a page of a batch's open chunks in plan order: the suspects, or the others."""
    statement = OPEN_SUSPECTS if suspects else OPEN_CHUNKS
    rows = conn.execute(statement, {"batch_key": batch_key, "after": after, "rows": limit})
    return [
        OpenChunk(row.key, row.batch_key, row.group, row.model, row.outstanding, row.losses, row.length) for row in rows
    ]


def claim(conn: Connection, session_id: str, keys: Sequence[int]) -> Sequence[Claimed]:
    """Lease the open ones of these chunks; the session is known to live.

    Returns with them those that the session holds already: a claim whose answer was lost is repeated as it was.
    """
    values = {"rows": packed((key,) for key in sorted(set(keys))), "by_session": session_id}
    conn.execute(CLAIM, values)
    return [_to_claimed(row) for row in conn.execute(CLAIMED, values)]


def give_back(conn: Connection, now: Moment, session_id: str, chunks: Sequence[Returned]) -> None:
    """Reopen chunks held under these attempts, or close those of a canceling batch."""
    rows = packed((it.chunk, it.attempt, it.tries.hex(), it.lost) for it in chunks)
    settle_released(conn, now, 0, conn.execute(GIVE_BACK, {"rows": rows, "by_session": session_id}).all())


def settle_released(conn: Connection, now: Moment, sessions: int, rows: Sequence[Row[Any]]) -> Reaped:
    """Count down the batches of released chunks that were closed, and say what the release did."""
    closed = [row.batch_key for row in rows if row.state == "closed"]
    endings.settle(conn, now, closed)
    losses = sum(1 for row in rows if row.state == "open" and not row.progressed)
    return Reaped(sessions=sessions, reopened=len(rows) - len(closed), losses=losses, closed=len(closed))


def _to_claimed(row: Row[Any]) -> Claimed:
    headers, models = batch_rows.to_kept(row.headers)
    return Claimed(
        key=row.key,
        attempt=row.attempt,
        batch_key=row.batch_key,
        batch_id=row.batch_id,
        workspace=row.workspace,
        group=row.group,
        model=row.model,
        headers=headers,
        request_key=row.request_key,
        offset=row.offset,
        length=row.length,
        head_length=row.head_length,
        head_checksum=row.head_checksum,
        size=row.size,
        resolved=row.resolved,
        condemned=row.condemned,
        losses=row.losses,
        tries=bytes.fromhex(row.tries),
        expires_us=row.expires_us,
        models=models,
    )
