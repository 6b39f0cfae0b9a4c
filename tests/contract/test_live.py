"""`/lowtide/…` over real sockets: progress, events and results of batches that run, and the workers."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.serving import HEADERS, Served
from lowtide.ports.report import LaneReport, Report, UpstreamTrouble

NO_VERSION = {"anthropic-version": None}
NAMES = tuple("abcdefgh")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("live")) as served:
        yield served


class Events:
    """A client that listens to the events of a batch."""

    def __init__(self, served: Served, batch_id: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        self._connection.request("GET", f"/lowtide/batches/{batch_id}/events", headers=HEADERS | headers)
        self.response = self._connection.getresponse()
        assert self.response.status == 200
        assert self.response.getheader("content-type") == "text/event-stream"

    def next(self) -> dict[str, Any] | None:
        """Return the next event's fields, or None at the end of the stream; comments are passed over."""
        fields: dict[str, Any] = {}
        while line := self.response.readline().decode():
            if line == "\n" and "event" in fields:
                return fields | {"data": json.loads(fields["data"])}
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        return None

    def next_with(self, succeeded: int) -> dict[str, Any]:
        """Return the first event with so many successes; a reason that comes or goes is an event of its own."""
        while (event := self.next()) is not None:
            if event["data"]["request_counts"]["succeeded"] == succeeded:
                return event
        raise AssertionError("the stream ended before")

    def leave(self) -> None:
        self._connection.close()
        self.response.close()


Listen = Callable[..., Events]


@pytest.fixture
def listen(served: Served) -> Iterator[Listen]:
    """Listen to a batch until the test ends."""
    opened: list[Events] = []

    def listen(batch_id: str, **headers: str) -> Events:
        opened.append(Events(served, batch_id, **headers))
        return opened[-1]

    yield listen
    for events in opened:
        events.leave()


def until(found: Any) -> Any:
    """Return the first true value of `found`, asked again and again; the suite's timeout bounds it."""
    while not (value := found()):
        time.sleep(0.02)
    return value


def progress(served: Served, batch_id: str) -> Any:
    answer = served.call("GET", f"/lowtide/batches/{batch_id}", headers=NO_VERSION)
    assert answer.status == 200, answer.body
    return answer.json()


# ---------------------------------------------------------------------------------------------- progress


def test_progress_has_live_counts_in_the_order_of_the_wire(served: Served) -> None:
    batch = served.create(*NAMES)
    served.resolve(batch, ["a", "b", "c"])
    found = progress(served, batch)
    assert list(found) == [
        *("id", "type", "processing_status", "request_counts", "usage", "chunks"),
        *("created_at", "expires_at", "ended_at", "elapsed_s", "rate_per_s", "eta_s", "standing_still"),
    ]
    assert found["request_counts"] == {"processing": 5, "succeeded": 3, "errored": 0, "canceled": 0, "expired": 0}
    assert found["usage"]["output_tokens"] > 0
    assert (found["ended_at"], found["rate_per_s"], found["eta_s"]) == (None, None, None)
    assert served.call("GET", f"/v1/messages/batches/{batch}").json()["request_counts"]["processing"] == 8


def test_a_batch_without_a_worker_says_what_to_do(served: Served) -> None:
    found = progress(served, served.create())
    assert found["standing_still"]["reason"] == "no_worker"
    assert "lowtide worker" in found["standing_still"]["text"]


def test_a_batch_whose_upstream_is_in_trouble_says_which_and_why(served: Served) -> None:
    batch = served.create()
    session = served.run(served.store.open_session("troubled", 60))
    lane = LaneReport("box", 0, 8, UpstreamTrouble.REFUSES_US, "HTTP 401")
    served.run(served.store.heartbeat(session.id, [], Report(1, [lane])))
    found = progress(served, batch)
    workers = served.call("GET", "/lowtide/workers", headers=NO_VERSION).json()["data"]
    served.run(served.store.end_session(session.id))
    assert found["standing_still"]["reason"] == "upstream_refuses_us"
    (worker,) = workers
    assert (worker["worker"], worker["held_chunks"], worker["store_trouble"]) == ("troubled", 0, None)
    trouble = {"reason": "refuses_us", "text": "HTTP 401"}
    assert worker["upstreams"] == [{"name": "box", "in_flight": 0, "limit": 8, "trouble": trouble}]


def test_a_batch_that_ended_has_its_final_figures(served: Served) -> None:
    batch = served.create("a", "b")
    served.finish(batch, errored=["b"])
    found = progress(served, batch)
    assert found["processing_status"] == "ended"
    assert found["request_counts"] == {"processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}
    assert (found["eta_s"], found["standing_still"]) == (None, None)
    assert found["ended_at"] is not None


@pytest.mark.parametrize("rest", ["", "/events", "/results"])
def test_an_unknown_batch_is_not_found_in_the_contracts_envelope(served: Served, rest: str) -> None:
    answer = served.call("GET", f"/lowtide/batches/msgbatch_nobody{rest}")
    assert answer.error == (404, "not_found_error", "Message Batch msgbatch_nobody not found.")


def test_other_methods_are_refused(served: Served) -> None:
    assert served.call("POST", f"/lowtide/batches/{served.create()}").status == 405
    assert served.call("DELETE", "/lowtide/workers").headers["allow"] == "GET, HEAD"


# ---------------------------------------------------------------------------------------------- events


def test_events_tell_each_change_and_then_the_end(served: Served, listen: Listen) -> None:
    batch = served.create(*NAMES)
    events = listen(batch)
    first = events.next()
    assert first is not None
    assert (first["event"], first["data"]["request_counts"]["processing"]) == ("progress", 8)
    served.resolve(batch, ["a", "b"])
    assert events.next_with(succeeded=2)["event"] == "progress"
    served.resolve(batch, NAMES[2:])
    last = events.next_with(succeeded=8)
    assert (last["event"], last["data"]["processing_status"]) == ("ended", "ended")
    assert events.next() is None


def test_listeners_share_one_look_and_leave_nothing_behind(served: Served, listen: Listen) -> None:
    batch = served.create()
    until(lambda: served.live.listeners == 0)
    listeners = [listen(batch) for _ in range(5)]
    for each in listeners:
        assert each.next() is not None
    assert served.live.listeners == 5
    assert len(served.live._watches) == 1
    for each in listeners:
        each.leave()
    until(lambda: served.live.listeners == 0)
    assert served.live._watches == {}


def test_who_comes_again_is_not_told_what_it_saw_last(served: Served, listen: Listen) -> None:
    batch = served.create(*NAMES)
    seen = listen(batch).next()
    assert seen is not None
    again = listen(batch, **{"last-event-id": seen["id"]})
    until(lambda: any(watch.seen for watch in served.live._watches.values()))
    served.resolve(batch, ["a"])
    told = again.next()
    assert told is not None
    assert told["id"] != seen["id"]


def test_a_batch_that_ended_is_told_once_and_then_no_more(served: Served, listen: Listen) -> None:
    batch = served.create()
    served.finish(batch)
    events = listen(batch)
    last = events.next()
    assert last is not None
    assert last["event"] == "ended"
    assert events.next() is None
    path = f"/lowtide/batches/{batch}/events"
    assert served.call("GET", path, headers={"last-event-id": last["id"]}).status == 204


def test_head_of_events_has_no_stream(served: Served) -> None:
    answer = served.call("HEAD", f"/lowtide/batches/{served.create()}/events")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"


# ---------------------------------------------------------------------------------------------- results so far


def test_results_so_far_are_the_front_of_the_results(served: Served) -> None:
    batch = served.create(*NAMES)
    path = f"/lowtide/batches/{batch}/results"
    empty = served.call("GET", path)
    assert (empty.status, empty.body, empty.headers["x-lowtide-next"]) == (200, b"", "0")
    data = b""
    for names in (["c", "a"], ["b"], ["h", "d", "e"]):
        served.resolve(batch, names)
        answer = served.call("GET", f"{path}?after={len(data)}")
        assert answer.headers["content-type"] == "application/x-jsonl"
        assert answer.body.count(b"\n") == len(names)
        data += answer.body
        assert int(answer.headers["x-lowtide-next"]) == len(data)
    served.resolve(batch, ["f", "g"])
    rest = served.call("GET", f"{path}?after={len(data)}")
    assert "x-lowtide-next" not in rest.headers
    whole = served.call("GET", f"/v1/messages/batches/{batch}/results").body
    assert data + rest.body == whole
    assert {json.loads(line)["custom_id"] for line in whole.splitlines()} == set(NAMES)
    at_end = served.call("GET", f"{path}?after={len(whole)}")
    assert (at_end.status, at_end.body) == (200, b"")


def test_results_go_on_from_any_byte_also_for_a_server_that_remembers_nothing(served: Served) -> None:
    batch = served.create(*NAMES)
    served.resolve(batch, ["a", "b"])
    served.resolve(batch, ["c"])
    path = f"/lowtide/batches/{batch}/results"
    whole = served.call("GET", path).body
    for after in (1, 100, len(whole) - 1, len(whole)):
        assert served.call("GET", f"{path}?after={after}").body == whole[after:]


def test_what_a_cancel_left_out_comes_with_the_end(served: Served) -> None:
    batch = served.create(*NAMES)
    served.resolve(batch, ["a"])
    path = f"/lowtide/batches/{batch}/results"
    data = served.call("GET", path).body
    served.call("POST", f"/v1/messages/batches/{batch}/cancel")
    served.wait_ended(batch)
    rest = served.call("GET", f"{path}?after={len(data)}")
    assert rest.body.count(b'"canceled"') == 7
    assert data + rest.body == served.call("GET", f"/v1/messages/batches/{batch}/results").body
    assert served.call("GET", path, headers={"range": "bytes=0-9"}).status == 206


@pytest.mark.parametrize("ended", [False, True])
def test_a_position_that_does_not_exist_is_told(served: Served, *, ended: bool) -> None:
    batch = served.create()
    if ended:
        served.finish(batch)
    path = f"/lowtide/batches/{batch}/results"
    assert served.call("GET", f"{path}?after=99999").status == 416
    assert served.call("GET", f"{path}?after=-1").error == (
        *(400, "invalid_request_error"),
        "after: Input should be a number of bytes",
    )


def test_another_workspaces_batch_has_nothing_to_show(tmp_path: Path) -> None:
    with Served(tmp_path, upkeep=False) as served:
        batch = served.create()
        assert served.run(served.live.look("wrkspc_other", batch)) is None

        async def listen() -> list[object]:
            return [seen async for seen in served.live.follow("wrkspc_other", batch)]

        assert served.run(listen()) == []
