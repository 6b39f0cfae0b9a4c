"""`/metrics` over a real socket, read by Prometheus' own parser, of a server whose worker did real work."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.model_server import ModelServer
from contract.serving import Served, requests
from lowtide.api.metrics import METRICS
from lowtide.domain.errors import StoreUnavailable
from lowtide.ports.report import Count, LaneReport, Report
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        yield served


def scrape(served: Served) -> Samples:
    """Return every sample by its name and the values of its labels, sorted."""
    answer = served.call("GET", "/metrics", headers={"x-api-key": None, "anthropic-version": None})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_every_series_is_documented_and_every_documented_metric_comes(served: Served) -> None:
    served.create()
    session = served.run(served.store.open_session("worker", 60))
    added = [
        *(Count("results", ("succeeded",), 3), Count("tokens", ("input",), 9), Count("try_us", ("box",), 2_500_000)),
        *(Count("tries", ("box", "succeeded"), 3), Count("commits", ("0.05",), 2), Count("commits", ("+Inf",), 1)),
        Count("commit_us", (), 7_000_000),
    ]
    served.run(served.store.heartbeat(session.id, [], Report(1, [LaneReport("box", 3, 64)], added=added)))
    served.call("GET", "/healthz")
    found = scrape(served)
    names = {name for name, *_ in found}
    assert names == {series for metric in METRICS for series in metric.series}
    assert found["lowtide_upstream_in_flight", "box"] == 3
    assert found["lowtide_try_seconds_total", "box"] == 2.5
    assert found["lowtide_commit_seconds_bucket", "0.05"] == found["lowtide_commit_seconds_bucket", "10.0"] == 2
    assert found["lowtide_commit_seconds_bucket", "+Inf"] == found["lowtide_commit_seconds_count",] == 3
    assert found["lowtide_commit_seconds_sum",] == 7
    assert 0 < found["lowtide_next_expiry_seconds",] <= 86_400


def test_calls_are_counted_by_route_and_status_never_by_what_a_client_wrote(served: Served) -> None:
    batch = served.create()
    served.call("GET", f"/lowtide/batches/{batch}")
    served.call("GET", "/nobody/knows/this")
    served.call("PATCH", "/v1/models")
    found = scrape(served)
    assert found["lowtide_calls_total", "/v1/messages/batches", "200", "POST"] == 1
    assert found["lowtide_calls_total", "/lowtide/batches/{batch_id}", "200", "GET"] == 1
    assert found["lowtide_calls_total", "404", "GET", "none"] == 1
    assert found["lowtide_calls_total", "/v1/models", "405", "other"] == 1


def test_no_counter_goes_back_when_its_worker_dies(served: Served) -> None:
    session = served.run(served.store.open_session("worker", 60))
    report = Report(1, added=[Count("retries", (), 4), Count("results", ("succeeded",), 9)])
    served.run(served.store.heartbeat(session.id, [], report))
    served.run(served.store.release_worker("worker"))
    found = scrape(served)
    assert found["lowtide_workers",] == 0
    assert found["lowtide_retries_total",] == 4
    assert found["lowtide_results_total", "succeeded"] == 9


def test_a_database_that_is_away_leaves_its_figures_out_and_the_page_stands(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(served.store, "gauges", away)
    found = scrape(served)
    assert found["lowtide_store_up",] == 0
    assert ("lowtide_workers",) not in found
    assert scrape(served)["lowtide_calls_total", "/metrics", "200", "GET"] == 1


def test_a_worker_that_ran_a_batch_is_in_the_figures_and_nothing_of_a_client_is(tmp_path: Path) -> None:
    canary = "canary-7f3a"
    with ModelServer() as model_server:
        config = UpstreamConfig(name="box", url=model_server.url)
        with Served(tmp_path, upstreams=lambda: [MessagesUpstream(config)], worker=True) as served:
            body = requests(*(f"{canary}-{index}" for index in range(12)), model=f"{canary}-model")
            batch = served.call("POST", "/v1/messages/batches", body, {"x-api-key": canary}).json()["id"]
            served.wait_ended(batch)
            while scrape(served).get(("lowtide_results_total", "succeeded")) != 12:
                time.sleep(0.05)
            text = served.call("GET", "/metrics").body.decode()
            found = scrape(served)
    assert found["lowtide_tries_total", "box", "succeeded"] == 12
    assert found["lowtide_tokens_total", "output"] > 0
    assert found["lowtide_commit_seconds_count",] >= 1
    assert found["lowtide_upstream_in_flight_limit", "box"] == 64
    assert canary not in text
    assert batch not in text
