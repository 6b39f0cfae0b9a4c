"""The port of what is going on: how far a batch is, which workers live, the whole store at a glance.

Reads for people and dashboards: nothing that decides about a result or a lease may rest on them. The metadata store
answers them; they stand apart because the doors that show them need nothing else of it. Wall times are microseconds since
1970 (`…_us`). Every operation may raise StoreUnavailable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lowtide.domain.outcomes import Counts, Usage
from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Batch
from lowtide.ports.report import Count, LaneReport


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A session that is not past, its last report, and how many chunks it holds."""

    worker: str
    session: str
    since_us: int
    heartbeat_age_s: float
    held: int
    lanes: Sequence[LaneReport]
    put_aside: int
    store_trouble: str | None


@dataclass(frozen=True, slots=True)
class Advance:
    """A commit that brought a batch forward: when, and by how many results."""

    at_us: int
    results: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch as it is now. `counts` and `usage` are live, unlike those of `batch`, which move when it ends.

    `open`, `leased` and `closed` count chunks whose rows are kept. `models` are some of the models that have requests
    outstanding. `recent` are the last commits, newest first, of the last ten minutes at most.
    """

    batch: Batch
    counts: Counts
    usage: Usage
    open: int
    leased: int
    closed: int
    models: Sequence[str]
    recent: Sequence[Advance]


@dataclass(frozen=True, slots=True)
class Gauges:
    """The whole store at a glance. Requests and chunks are those of batches that run: open ones and leased ones."""

    batches: Mapping[BatchState, int]
    open_requests: int
    leased_requests: int
    open_chunks: int
    leased_chunks: int
    next_expiry_us: int | None
    uploads: int
    doomed: int
    workers: Sequence[WorkerSeen]
    counters: Sequence[Count]


class LiveStore(Protocol):
    """What the metadata store tells of work under way."""

    async def progress(self, workspace: str, batch_id: str) -> Progress | None:
        """Return how far a batch is, or None for an unknown, deleted or foreign id; cheap enough for each second."""
        ...

    async def workers(self) -> Sequence[WorkerSeen]:
        """Return the sessions that are not past, oldest first."""
        ...

    async def gauges(self) -> Gauges:
        """Return the whole store at a glance; it walks the open chunks of all batches that run."""
        ...
