"""Sessions: their beginning, their heartbeat and their end.

Leases belong to sessions, so one heartbeat renews them all. A session is past once its time is out, its boot is another
or its row is gone, and is never revived. Its chunks are reopened in the transaction that removes its row: while the row
stands nobody else can have them, and once it is gone no commit of that session can pass the guard of an attempt.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Text, and_, bindparam, delete, false, insert, or_, select, true, update
from sqlalchemy.sql.dml import ReturningUpdate

from lowtide.domain.errors import SessionPast
from lowtide.ports.metadata import Claimed, Pulse, Reaped, Session
from lowtide.ports.report import Report
from lowtide.storage import counters, leases, progress
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import LEASED, batch, chunk, session

ADD_SESSION = insert(session)
_lives = and_(
    session.c.id == bindparam("of_session"),
    session.c.boot == bindparam("now_boot"),
    session.c.until_us > bindparam("now_us", type_=BigInteger),
)
FIND_LIVE = select(session.c.id).where(_lives)
RENEW = (
    update(session)
    .values(until_us=bindparam("now_us", type_=BigInteger) + session.c.lease_us)
    .where(_lives)
    .returning(session.c.id)
)
HELD = select(chunk.c.key, chunk.c.attempt, chunk.c.batch_key, batch.c.state).where(
    chunk.c.session == bindparam("of_session"), batch.c.key == chunk.c.batch_key
)
REPORT = (
    update(session)
    .values(report_number=bindparam("number", type_=BigInteger), report=bindparam("said"))
    .where(session.c.id == bindparam("of_session"), session.c.report_number < bindparam("number", type_=BigInteger))
    .returning(session.c.id)
)
DROP_SESSION = delete(session).where(session.c.id == bindparam("of_session"))
DROP_PAST = (
    delete(session)
    .where(or_(session.c.boot != bindparam("now_boot"), session.c.until_us <= bindparam("now_us")))
    .returning(session.c.id)
)
DROP_OF_WORKER = delete(session).where(session.c.worker == bindparam("of_worker")).returning(session.c.id)

_past = records(("session", Text()))
_leased_by_past = and_(chunk.c.session == _past.c.session, chunk.c.state == LEASED, batch.c.key == chunk.c.batch_key)
_outcome = (chunk.c.batch_key, chunk.c.state, chunk.c.progressed)
RELEASE: ReturningUpdate[Any] = (
    update(chunk).values(**leases.released(false())).where(_leased_by_past).returning(*_outcome)
)
REAP: ReturningUpdate[Any] = update(chunk).values(**leases.released(true())).where(_leased_by_past).returning(*_outcome)


def open_session(conn: Connection, now: Moment, session_id: str, worker: str, lease_s: float) -> Session:
    """Begin a session whose lease starts now."""
    lease_us = round(lease_s * 1_000_000)
    until_us = now.lease_us + lease_us
    values = {"id": session_id, "worker": worker, "boot": now.boot, "lease_us": lease_us, "until_us": until_us}
    conn.execute(ADD_SESSION, values | {"since_us": now.wall_us})
    return Session(session_id, lease_s)


def claim(conn: Connection, now: Moment, session_id: str, keys: Sequence[int]) -> Sequence[Claimed]:
    """Lease the open ones of these chunks to a session that lives."""
    values = {"of_session": session_id, "now_boot": now.boot, "now_us": now.lease_us}
    if conn.execute(FIND_LIVE, values).first() is None:
        raise SessionPast(f"session {session_id} is past")
    return leases.claim(conn, session_id, keys)


def heartbeat(
    conn: Connection, now: Moment, session_id: str, held: Sequence[int], report: Report | None = None
) -> Pulse:
    """Renew a session, take its report, and compare what it believes it holds with what it has."""
    values = {"of_session": session_id, "now_boot": now.boot, "now_us": now.lease_us}
    if conn.execute(RENEW, values).first() is None:
        raise SessionPast(f"session {session_id} is past")
    if report is not None:
        _take_report(conn, session_id, report)
    rows = conn.execute(HELD, {"of_session": session_id}).all()
    named = frozenset(held)
    return Pulse(
        lost=named - {row.key for row in rows},
        canceling=frozenset(row.batch_key for row in rows if row.state == "canceling"),
        strays={row.key: row.attempt for row in rows if row.key not in named},
    )


def _take_report(conn: Connection, session_id: str, report: Report) -> None:
    """Keep a report, unless it is one that is repeated after a lost answer: its counters would grow twice."""
    values = {"of_session": session_id, "number": report.number, "said": progress.kept(report)}
    if conn.execute(REPORT, values).first() is not None:
        counters.add(conn, report.added)


def end_session(conn: Connection, now: Moment, session_id: str, report: Report | None = None) -> None:
    """Make a session past by its own wish: its last report is taken, its chunks reopen without a loss."""
    if report is not None:
        _take_report(conn, session_id, report)
    conn.execute(DROP_SESSION, {"of_session": session_id})
    rows = conn.execute(RELEASE, {"rows": packed([(session_id,)])}).all()
    leases.settle_released(conn, now, 1, rows)


def reap(conn: Connection, now: Moment) -> Reaped:
    """Make sessions past whose time is out or whose boot is another, and reopen their chunks."""
    return _bury(conn, now, conn.execute(DROP_PAST, {"now_boot": now.boot, "now_us": now.lease_us}).scalars().all())


def release_worker(conn: Connection, now: Moment, worker: str) -> Reaped:
    """Make every session of a worker process past: it was seen to die."""
    return _bury(conn, now, conn.execute(DROP_OF_WORKER, {"of_worker": worker}).scalars().all())


def _bury(conn: Connection, now: Moment, past: Sequence[str]) -> Reaped:
    if not past:
        return Reaped(sessions=0, reopened=0, losses=0, closed=0)
    rows = conn.execute(REAP, {"rows": packed((session_id,) for session_id in past)}).all()
    return leases.settle_released(conn, now, len(past), rows)
