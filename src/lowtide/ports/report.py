"""What a worker tells with a heartbeat: its upstreams as it sees them, and by how much its counters grew.

Figures for people and dashboards: nothing that decides about a result or a lease may rest on them. They hold names of
the configuration, figures and causes, never contents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

RESULTS = "results"
"""The counter of results by outcome. Workers report those of requests they ran, the store adds canceled and expired."""


class UpstreamTrouble(StrEnum):
    """Why a worker sends an upstream nothing but a try now and then."""

    DOWN = "down"
    REFUSES_US = "refuses_us"
    NO_ENDPOINT = "no_endpoint"


@dataclass(frozen=True, slots=True)
class LaneReport:
    """One upstream as one worker sees it. `text` is what it last said of its trouble, if it is in any."""

    upstream: str
    in_flight: int
    limit: int
    trouble: UpstreamTrouble | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """How much a counter grew, or its whole value. `labels` are names of the configuration or of the code."""

    name: str
    labels: tuple[str, ...]
    value: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says with a heartbeat.

    `added` is what its counters grew by since the report before. `number` grows from report to report of a session: one
    that is repeated after a lost answer is counted once. `put_aside` are requests that wait for a later try.
    """

    number: int
    lanes: Sequence[LaneReport] = ()
    put_aside: int = 0
    store_trouble: str | None = None
    added: Sequence[Count] = ()
