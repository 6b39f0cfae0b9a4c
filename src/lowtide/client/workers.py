"""The workers of a server of ours, as `/lowtide/workers` says them: only what our commands look at."""

from datetime import datetime

import msgspec


class TroubleShape(msgspec.Struct, frozen=True):
    """What keeps a worker from an upstream."""

    reason: str
    text: str = ""


class UpstreamShape(msgspec.Struct, frozen=True):
    """An upstream as a worker sees it."""

    name: str
    in_flight: int
    limit: int
    trouble: TroubleShape | None = None


class WorkerShape(msgspec.Struct, frozen=True):
    """A worker that lives."""

    worker: str
    since: datetime
    heartbeat_age_s: float
    held_chunks: int
    put_aside: int
    store_trouble: str | None
    upstreams: list[UpstreamShape]


class WorkersShape(msgspec.Struct, frozen=True):
    """All of them, oldest first."""

    data: list[WorkerShape]
