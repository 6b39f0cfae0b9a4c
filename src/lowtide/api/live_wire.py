"""The JSON of `/lowtide/…`: how far a batch is, and who works. A struct's fields stand in the order of the wire.

Times of day are RFC 3339, as in the contract; durations are seconds (`…_s`). Additive changes only: clients of ours read it.
"""

from collections.abc import Sequence

import msgspec

from lowtide.api.pace import eta_s, rate_per_s
from lowtide.api.standing import Standing
from lowtide.api.wire import processing_status
from lowtide.domain.outcomes import Counts, Usage
from lowtide.domain.times import SECOND_US, format_time
from lowtide.ports.live import Progress, WorkerSeen
from lowtide.ports.report import LaneReport


class Chunks(msgspec.Struct, frozen=True):
    """The chunks of a batch by state, as far as their rows are kept."""

    open: int
    leased: int
    closed: int


class BatchProgress(msgspec.Struct, frozen=True):
    """A batch as it is now; its counts and usage are live."""

    id: str
    type: str
    processing_status: str
    request_counts: Counts
    usage: Usage
    chunks: Chunks
    created_at: str
    expires_at: str
    ended_at: str | None
    elapsed_s: float
    rate_per_s: float | None
    eta_s: float | None
    standing_still: Standing | None


class UpstreamTrouble(msgspec.Struct, frozen=True):
    """What keeps a worker from an upstream."""

    reason: str
    text: str


class WorkerUpstream(msgspec.Struct, frozen=True):
    """An upstream as a worker sees it."""

    name: str
    in_flight: int
    limit: int
    trouble: UpstreamTrouble | None


class Worker(msgspec.Struct, frozen=True):
    """A worker that lives."""

    worker: str
    session: str
    since: str
    heartbeat_age_s: float
    held_chunks: int
    put_aside: int
    store_trouble: str | None
    upstreams: Sequence[WorkerUpstream]


class Workers(msgspec.Struct, frozen=True):
    """All of them, oldest first."""

    data: Sequence[Worker]


def batch_progress(progress: Progress, standing: Standing | None, now_us: int) -> BatchProgress:
    """Return how far a batch is for the wire."""
    batch = progress.batch
    is_running = batch.ended_us is None
    rate = rate_per_s(progress.recent, batch.created_us, now_us) if is_running else None
    until_us = now_us if batch.ended_us is None else batch.ended_us
    return BatchProgress(
        id=batch.id,
        type="lowtide_batch_progress",
        processing_status=processing_status(batch.state),
        request_counts=progress.counts,
        usage=progress.usage,
        chunks=Chunks(progress.open, progress.leased, progress.closed),
        created_at=format_time(batch.created_us),
        expires_at=format_time(batch.expires_us),
        ended_at=None if batch.ended_us is None else format_time(batch.ended_us),
        elapsed_s=round(max(0, until_us - batch.created_us) / SECOND_US, 3),
        rate_per_s=_rounded(rate),
        eta_s=_rounded(eta_s(progress.counts.processing, rate)) if is_running and standing is None else None,
        standing_still=standing,
    )


def worker_list(workers: Sequence[WorkerSeen]) -> Workers:
    """Return the workers for the wire."""
    return Workers([_worker(each) for each in workers])


def _worker(seen: WorkerSeen) -> Worker:
    return Worker(
        worker=seen.worker,
        session=seen.session,
        since=format_time(seen.since_us),
        heartbeat_age_s=round(seen.heartbeat_age_s, 3),
        held_chunks=seen.held,
        put_aside=seen.put_aside,
        store_trouble=seen.store_trouble,
        upstreams=[_upstream(lane) for lane in seen.lanes],
    )


def _upstream(lane: LaneReport) -> WorkerUpstream:
    trouble = None if lane.trouble is None else UpstreamTrouble(lane.trouble.value, lane.text)
    return WorkerUpstream(lane.upstream, lane.in_flight, lane.limit, trouble)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
