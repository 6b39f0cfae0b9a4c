"""`/metrics`: what Prometheus reads, in one table of names that the manual is written from.

Figures of the whole store come from the store itself, so that every API process says the same and no counter goes back
when a worker dies; this process adds its own calls. Labels are names of the configuration or of the code, never a
client's model, batch or workspace (so that none of theirs is told, and series stay few).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

import lowtide
from lowtide.api.measures import CALL_SECONDS, CALLS, Measures
from lowtide.api.services import Services
from lowtide.dispatch import report
from lowtide.domain.errors import StorageError
from lowtide.domain.states import BatchState
from lowtide.domain.times import SECOND_US
from lowtide.ports.live import Gauges
from lowtide.ports.report import RESULTS


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is documented."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    says: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it."""
        if self.kind is Kind.HISTOGRAM:
            return (f"{self.name}_bucket", f"{self.name}_count", f"{self.name}_sum")
        return (self.name,)


_GAUGE, _COUNTER, _HISTOGRAM = Kind
METRICS: Final = (
    Metric("lowtide_info", _GAUGE, ("version",), "1, with the version of this API process."),
    Metric(
        "lowtide_store_up", _GAUGE, (), "1 if the database answered this scrape; 0: what comes from it is left out."
    ),
    Metric("lowtide_batches", _GAUGE, ("state",), "Batches that run, by state: `in_progress` or `canceling`."),
    Metric(
        "lowtide_requests",
        _GAUGE,
        ("state",),
        "Requests of batches that run and have no result: `open` wait for a worker (the depth of the queue), `leased` "
        "are with one.",
    ),
    Metric("lowtide_chunks", _GAUGE, ("state",), "Chunks that are `open` or `leased`."),
    Metric("lowtide_next_expiry_seconds", _GAUGE, (), "Seconds until the next batch expires; absent when none runs."),
    Metric("lowtide_uploads", _GAUGE, (), "Creates under way, and uploads that were given up and not cleared yet."),
    Metric("lowtide_doomed_objects", _GAUGE, (), "Objects of no use any more that upkeep has yet to delete."),
    Metric("lowtide_workers", _GAUGE, (), "Workers that live."),
    Metric("lowtide_workers_in_store_trouble", _GAUGE, (), "Workers that cannot store their results now."),
    Metric("lowtide_put_aside_requests", _GAUGE, (), "Requests that wait for a later try."),
    Metric("lowtide_upstream_in_flight", _GAUGE, ("upstream",), "Requests in flight to an upstream, over all workers."),
    Metric("lowtide_upstream_in_flight_limit", _GAUGE, ("upstream",), "How many there may be."),
    Metric("lowtide_upstream_in_trouble", _GAUGE, ("upstream",), "Workers for which the upstream is down or refuses."),
    Metric(
        "lowtide_results_total",
        _COUNTER,
        ("outcome",),
        "Results by outcome: `succeeded`, `errored`, `canceled`, `expired`; the latter two count at a batch's end.",
    ),
    Metric(
        "lowtide_tokens_total",
        _COUNTER,
        ("kind",),
        "Tokens of succeeded requests: `input`, `output`, `cache_creation_input`, `cache_read_input`.",
    ),
    Metric(
        "lowtide_tries_total",
        _COUNTER,
        ("upstream", "answer"),
        "Tries by what came of them: `succeeded`, `failed` (the request's own fault), `busy`, `unknown_model`, `faulty`, "
        "`refuses_us`, `no_endpoint`, `unreachable`, `broke`, `out_of_time`, `aborted` (by us).",
    ),
    Metric(
        "lowtide_try_seconds_total", _COUNTER, ("upstream",), "Seconds that tries took, those that failed included."
    ),
    Metric("lowtide_retries_total", _COUNTER, (), "Requests that were put back to be tried again."),
    Metric(
        "lowtide_refused_parts_total", _COUNTER, (), "Parts of commits refused because the lease was lost: zombies."
    ),
    Metric(
        "lowtide_refused_results_total", _COUNTER, (), "Results in them, thrown away; another worker made them again."
    ),
    Metric("lowtide_commit_seconds", _HISTOGRAM, (), "Seconds in which results became durable and recorded."),
    Metric("lowtide_event_listeners", _GAUGE, (), "Clients that listen to events of this API process."),
    Metric(CALLS, _COUNTER, ("route", "method", "status"), "Calls answered by this API process."),
    Metric(CALL_SECONDS, _HISTOGRAM, ("route",), "Seconds until the head of the answer left this API process."),
)
_BY_NAME: Final[Mapping[str, Metric]] = {metric.name: metric for metric in METRICS}


class MetricsPage:
    """Serves `/metrics` for one process."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    async def show(self, _: Request, services: Services) -> Response:
        """`GET /metrics`; a store that does not answer leaves out its own figures, not the page."""
        try:
            gauges = await services.live.store.gauges()
        except StorageError:
            gauges = None
        registry = CollectorRegistry()
        registry.register(_Scrape(gauges, services.live.listeners, services.clock.wall_us()))
        body = generate_latest(registry) + generate_latest(self._measures.registry)
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})


@dataclass(frozen=True, slots=True, eq=False)
class _Scrape(Collector):
    """The figures of one scrape."""

    gauges: Gauges | None
    listeners: int
    now_us: int

    def collect(self) -> Iterator[Family]:
        yield _gauge("lowtide_info", [((lowtide.__version__,), 1)])
        yield _gauge("lowtide_store_up", [((), int(self.gauges is not None))])
        yield _gauge("lowtide_event_listeners", [((), self.listeners)])
        if self.gauges is not None:
            yield from _queue(self.gauges, self.now_us)
            yield from _workers(self.gauges)
            yield from _counters(self.gauges)


def _queue(gauges: Gauges, now_us: int) -> Iterator[Family]:
    states = (BatchState.IN_PROGRESS, BatchState.CANCELING)
    yield _gauge("lowtide_batches", [((state.value,), gauges.batches.get(state, 0)) for state in states])
    yield _gauge("lowtide_requests", [(("open",), gauges.open_requests), (("leased",), gauges.leased_requests)])
    yield _gauge("lowtide_chunks", [(("open",), gauges.open_chunks), (("leased",), gauges.leased_chunks)])
    if gauges.next_expiry_us is not None:
        yield _gauge("lowtide_next_expiry_seconds", [((), (gauges.next_expiry_us - now_us) / SECOND_US)])
    yield _gauge("lowtide_uploads", [((), gauges.uploads)])
    yield _gauge("lowtide_doomed_objects", [((), gauges.doomed)])


def _workers(gauges: Gauges) -> Iterator[Family]:
    workers = gauges.workers
    lanes = [lane for worker in workers for lane in worker.lanes]
    names = sorted({lane.upstream for lane in lanes})
    yield _gauge("lowtide_workers", [((), len(workers))])
    troubled = sum(worker.store_trouble is not None for worker in workers)
    yield _gauge("lowtide_workers_in_store_trouble", [((), troubled)])
    yield _gauge("lowtide_put_aside_requests", [((), sum(worker.put_aside for worker in workers))])
    for name, value_of in (
        ("lowtide_upstream_in_flight", lambda lane: lane.in_flight),
        ("lowtide_upstream_in_flight_limit", lambda lane: lane.limit),
        ("lowtide_upstream_in_trouble", lambda lane: int(lane.trouble is not None)),
    ):
        sums = [((upstream,), sum(value_of(lane) for lane in lanes if lane.upstream == upstream)) for upstream in names]
        yield _gauge(name, sums)


def _counters(gauges: Gauges) -> Iterator[Family]:
    """Yield the counters, and those that nothing was counted by yet as 0 where they have no labels."""
    found: dict[str, dict[tuple[str, ...], int]] = {}
    for count in gauges.counters:
        found.setdefault(count.name, {})[count.labels] = count.value
    yield _counter("lowtide_results_total", found.get(RESULTS, {}))
    yield _counter("lowtide_tokens_total", found.get(report.TOKENS, {}))
    yield _counter("lowtide_tries_total", found.get(report.TRIES, {}))
    yield _counter("lowtide_try_seconds_total", found.get(report.TRY_US, {}), unit=SECOND_US)
    yield _counter("lowtide_retries_total", found.get(report.RETRIES, {(): 0}))
    yield _counter("lowtide_refused_parts_total", found.get(report.REFUSED_PARTS, {(): 0}))
    yield _counter("lowtide_refused_results_total", found.get(report.REFUSED_RESULTS, {(): 0}))
    yield _commit_times(found.get(report.COMMITS, {}), found.get(report.COMMIT_US, {}).get((), 0))


def _commit_times(commits: Mapping[tuple[str, ...], int], sum_us: int) -> Family:
    buckets: list[tuple[str, float]] = []
    passed = 0
    for bound in (*map(str, report.COMMIT_BOUNDS_S), "+Inf"):
        passed += commits.get((bound,), 0)
        buckets.append((bound, passed))
    name = "lowtide_commit_seconds"
    return HistogramMetricFamily(name, _BY_NAME[name].says, buckets=buckets, sum_value=sum_us / SECOND_US)


def _gauge(name: str, values: Iterable[tuple[Sequence[str], float]]) -> Family:
    metric = _BY_NAME[name]
    family = GaugeMetricFamily(name, metric.says, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _counter(name: str, values: Mapping[tuple[str, ...], int], unit: int = 1) -> Family:
    metric = _BY_NAME[name]
    family = CounterMetricFamily(name, metric.says, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value / unit if unit > 1 else value)
    return family
