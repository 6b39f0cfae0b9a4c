"""How far batches are, which workers live, and the whole store at a glance: reads that decide nothing.

A running batch's counts are sums over its chunks, read by index: about 3,000 rows for 100,000 requests, some ten
milliseconds, and nothing that every commit would have to keep up to date. Its rate comes from the commits of the last
minutes, so that whoever asks first, or asks another process, is told the same. Invariant workspace-walls: the workspace
stands in the statement that finds the batch.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, Connection, Row, Select, bindparam, case, func, select

from lowtide.domain.outcomes import Counts, Outcome
from lowtide.domain.states import BatchState
from lowtide.domain.times import MINUTE_US, SECOND_US
from lowtide.ports.live import Advance, Gauges, Progress, WorkerSeen
from lowtide.ports.metadata import MERGER, Batch
from lowtide.ports.report import LaneReport, Report
from lowtide.storage import batch_rows, counters
from lowtide.storage.endings import USAGE, outstanding
from lowtide.storage.moments import Moment
from lowtide.storage.tables import CLOSED, ENDED, LEASED, OPEN, batch, block, chunk, doomed, segment, session, upload

RECENT_US: Final = 10 * MINUTE_US
RECENT_BLOCKS: Final = 256
MODELS_MAX: Final = 16

SUMS: Select[Any] = select(
    func.coalesce(func.sum(chunk.c.succeeded), 0).label("succeeded"),
    (func.coalesce(func.sum(chunk.c.errored), 0) + outstanding(Outcome.ERRORED)).label("errored"),
    outstanding(Outcome.CANCELED).label("canceled"),
    outstanding(Outcome.EXPIRED).label("expired"),
    *(func.coalesce(func.sum(chunk.c[name]), 0).label(name) for name in USAGE),
    *(
        func.coalesce(func.sum(case((chunk.c.state == state, 1), else_=0)), 0).label(name)
        for name, state in (("open", OPEN), ("leased", LEASED), ("closed", CLOSED))
    ),
).where(chunk.c.batch_key == bindparam("batch_key"))
MODELS: Select[Any] = (
    select(chunk.c.model)
    .where(chunk.c.batch_key == bindparam("batch_key"), chunk.c.state != CLOSED)
    .distinct()
    .limit(MODELS_MAX)
)
RECENT: Select[Any] = (
    select(segment.c.committed_us, block.c.lines)
    .join(segment, segment.c.key == block.c.segment)
    .where(block.c.batch_key == bindparam("batch_key"))
    .order_by(block.c.place.desc(), block.c.segment.desc(), block.c.offset.desc())
    .limit(RECENT_BLOCKS)
)

_held = (
    select(chunk.c.session, func.count().label("held"))
    .where(chunk.c.session.is_not(None))
    .group_by(chunk.c.session)
    .subquery("held")
)
WORKERS: Select[Any] = (
    select(session, func.coalesce(_held.c.held, 0).label("held"))
    .join_from(session, _held, _held.c.session == session.c.id, isouter=True)
    .where(session.c.boot == bindparam("now_boot"), session.c.until_us > bindparam("now_us", type_=BigInteger))
    .where(session.c.worker != MERGER)
    .order_by(session.c.since_us, session.c.worker)
)

BATCHES: Select[Any] = (
    select(batch.c.state, func.count().label("batches")).where(batch.c.state != ENDED).group_by(batch.c.state)
)
NEXT_EXPIRY = select(func.min(batch.c.expires_us)).where(batch.c.state != ENDED)
QUEUE: Select[Any] = (
    select(
        chunk.c.state,
        func.count().label("chunks"),
        func.sum(chunk.c.size - chunk.c.succeeded - chunk.c.errored).label("requests"),
    )
    .where(chunk.c.state != CLOSED)
    .group_by(chunk.c.state)
)
"""Chunks of a batch that has ended are closed."""
UPLOADS = select(func.count()).select_from(upload)
DOOMED = select(func.count()).select_from(doomed)


class _Kept(msgspec.Struct, frozen=True):
    """What a session's row keeps of its last report."""

    lanes: list[LaneReport] = []
    put_aside: int = 0
    store_trouble: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Kept).decode


def kept(report: Report) -> str:
    """Return what a session's row keeps of a report."""
    return _encode(_Kept(list(report.lanes), report.put_aside, report.store_trouble)).decode()


def progress(conn: Connection, now: Moment, workspace: str, batch_id: str) -> Progress | None:
    """Return how far a batch is, or None for an unknown, deleted or foreign id."""
    row = conn.execute(batch_rows.FIND, {"id": batch_id, "workspace": workspace}).one_or_none()
    if row is None:
        return None
    found, values = batch_rows.to_batch(row), {"batch_key": row.key}
    sums = conn.execute(SUMS, values).one()
    is_running = found.ended_us is None
    return Progress(
        batch=found,
        counts=_counts(found, sums) if is_running else found.counts,
        usage=batch_rows.to_usage(sums) if is_running else found.usage,
        open=sums.open,
        leased=sums.leased,
        closed=sums.closed,
        models=conn.execute(MODELS, values).scalars().all() if is_running else (),
        recent=_recent(conn, now, row.key) if is_running else (),
    )


def _counts(found: Batch, sums: Row[Any]) -> Counts:
    resolved = sums.succeeded + sums.errored + sums.canceled + sums.expired
    return Counts(found.counts.total - resolved, sums.succeeded, sums.errored, sums.canceled, sums.expired)


def _recent(conn: Connection, now: Moment, batch_key: int) -> Sequence[Advance]:
    """Return the last commits, newest first; several blocks of one commit are one."""
    found: list[Advance] = []
    for at_us, lines in conn.execute(RECENT, {"batch_key": batch_key}):
        if at_us < now.wall_us - RECENT_US:
            break
        if found and found[-1].at_us == at_us:
            found[-1] = Advance(at_us, found[-1].results + lines)
        else:
            found.append(Advance(at_us, lines))
    return found


def workers(conn: Connection, now: Moment) -> Sequence[WorkerSeen]:
    """Return the sessions that are not past, oldest first."""
    return [_seen(row, now) for row in conn.execute(WORKERS, {"now_boot": now.boot, "now_us": now.lease_us})]


def _seen(row: Row[Any], now: Moment) -> WorkerSeen:
    said = _decode(row.report) if row.report else _Kept()
    return WorkerSeen(
        worker=row.worker,
        session=row.id,
        since_us=row.since_us,
        heartbeat_age_s=max(0, now.lease_us - (row.until_us - row.lease_us)) / SECOND_US,
        held=row.held,
        lanes=said.lanes,
        put_aside=said.put_aside,
        store_trouble=said.store_trouble,
    )


def gauges(conn: Connection, now: Moment) -> Gauges:
    """Return the whole store at a glance."""
    queue = {row.state: row for row in conn.execute(QUEUE)}
    open_, leased = queue.get("open"), queue.get("leased")
    return Gauges(
        batches={BatchState(row.state): row.batches for row in conn.execute(BATCHES)},
        open_requests=open_.requests if open_ else 0,
        leased_requests=leased.requests if leased else 0,
        open_chunks=open_.chunks if open_ else 0,
        leased_chunks=leased.chunks if leased else 0,
        next_expiry_us=conn.execute(NEXT_EXPIRY).scalar_one(),
        uploads=conn.execute(UPLOADS).scalar_one(),
        doomed=conn.execute(DOOMED).scalar_one(),
        workers=workers(conn, now),
        counters=counters.values(conn),
    )
