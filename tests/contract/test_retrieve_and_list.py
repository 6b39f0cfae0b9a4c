"""Sections 5 and 9 of the contract: retrieving a batch, and paging through all of them in both directions."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contract.serving import Served
from lowtide.domain.times import DAY_US

PATH = "/v1/messages/batches"
UNKNOWN = "msgbatch_01AAAAAAAAAAAAAAAAAAAAAA"
TEXT = "limit: Input should be "


def test_5_a_batch_in_progress_says_when_to_ask_again(served: Served) -> None:
    answer = served.call("GET", f"{PATH}/{served.create()}")
    assert answer.status == 200
    assert answer.headers["retry-after"] == "10"
    assert answer.json()["results_url"] is None


def test_1_3_a_canceling_batch_has_no_polling_hint(still: Served) -> None:
    batch_id = still.create()
    canceled = still.call("POST", f"{PATH}/{batch_id}/cancel")
    assert "retry-after" not in canceled.headers
    assert "retry-after" not in still.call("GET", f"{PATH}/{batch_id}").headers


def test_3_an_ended_batch_has_the_contracts_bytes(served: Served) -> None:
    batch_id = served.create("a", "b", "c")
    served.finish(batch_id, errored=["b"])
    answer = served.call("GET", f"{PATH}/{batch_id}")
    ended = answer.json()
    expected = (
        f'{{"id":"{batch_id}","type":"message_batch","processing_status":"ended",'
        '"request_counts":{"processing":0,"succeeded":2,"errored":1,"canceled":0,"expired":0},'
        f'"ended_at":"{ended["ended_at"]}","created_at":"{ended["created_at"]}","expires_at":"{ended["expires_at"]}",'
        '"archived_at":null,"cancel_initiated_at":null,'
        f'"results_url":"{served.url}/v1/messages/batches/{batch_id}/results"}}'
    )
    assert answer.body == expected.encode()
    assert "retry-after" not in answer.headers
    assert "x-should-retry" not in answer.headers


def test_3_1_counts_stand_still_until_the_end(served: Served) -> None:
    batch_id = served.create("a", "b")
    still = {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert served.call("GET", f"{PATH}/{batch_id}").json()["request_counts"] == still
    served.finish(batch_id)
    ended = {"processing": 0, "succeeded": 2, "errored": 0, "canceled": 0, "expired": 0}
    assert served.call("GET", f"{PATH}/{batch_id}").json()["request_counts"] == ended


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        pytest.param("GET", "", id="retrieve"),
        pytest.param("POST", "/cancel", id="cancel"),
        pytest.param("GET", "/results", id="results"),
        pytest.param("DELETE", "", id="delete"),
    ],
)
@pytest.mark.parametrize("batch_id", [UNKNOWN, "x", "msgbatch_01%22%0A%7B"])
def test_5_an_unknown_id_is_not_found(served: Served, method: str, tail: str, batch_id: str) -> None:
    status, error_type, text = served.call(method, f"{PATH}/{batch_id}{tail}").error
    assert (status, error_type) == (404, "not_found_error")
    shown = 'msgbatch_01"\n{' if "%" in batch_id else batch_id
    assert text == f"Message Batch {shown} not found."


def test_9_an_archived_batch_is_seen_without_results(still: Served) -> None:
    batch_id = still.create()
    still.finish(batch_id)
    still.clock.turn(30 * DAY_US)
    assert still.run(still.store.retire(29 * DAY_US, 10)) == 1
    archived = still.call("GET", f"{PATH}/{batch_id}").json()
    assert archived["processing_status"] == "ended"
    assert archived["archived_at"] is not None
    assert archived["results_url"] is None
    text = f"Message Batch {batch_id} has no available results."
    assert still.call("GET", f"{PATH}/{batch_id}/results").error == (404, "not_found_error", text)
    assert [one["id"] for one in still.call("GET", PATH).json()["data"]] == [batch_id]
    assert still.call("DELETE", f"{PATH}/{batch_id}").status == 200


def test_9_an_expired_batch_ends_with_what_it_has(still: Served) -> None:
    batch_id = still.create("a", "b")
    still.clock.turn(DAY_US + 1)
    assert still.run(still.store.expire(10)) == 1
    expired = still.call("GET", f"{PATH}/{batch_id}").json()
    assert expired["processing_status"] == "ended"
    assert expired["request_counts"]["expired"] == 2
    lines = still.call("GET", f"{PATH}/{batch_id}/results").body.splitlines()
    assert sorted(lines) == [b'{"custom_id":"%b","result":{"type":"expired"}}' % name for name in (b"a", b"b")]


def test_9_what_finished_before_the_expiry_is_kept(still: Served) -> None:
    batch_id = still.create("a", "b")
    still.resolve(batch_id, ["a"])
    still.clock.turn(DAY_US + 1)
    assert still.run(still.store.expire(10)) == 1
    counts = still.call("GET", f"{PATH}/{batch_id}").json()["request_counts"]
    assert counts == {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 1}
    assert still.call("GET", f"{PATH}/{batch_id}/results").body.count(b"\n") == 2


@dataclass(frozen=True)
class Listed:
    served: Served
    ids: list[str]
    """Newest first."""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listed]:
    with Served(tmp_path_factory.mktemp("listed")) as served:
        yield Listed(served, [served.create("a") for _ in range(25)][::-1])


def test_5_a_page_has_the_contracts_keys_and_twenty_batches(listed: Listed) -> None:
    answer = listed.served.call("GET", PATH)
    page = answer.json()
    assert list(page) == ["data", "has_more", "first_id", "last_id"]
    assert answer.body.startswith(b'{"data":[{"id":"msgbatch_01')
    assert [one["id"] for one in page["data"]] == listed.ids[:20]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, listed.ids[0], listed.ids[19])
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("query", "start", "end", "has_more"),
    [
        pytest.param("limit=1", 0, 1, True, id="limit-1"),
        pytest.param("limit=1000", 0, 25, False, id="limit-1000"),
        pytest.param("limit=25", 0, 25, False, id="limit-as-many"),
        pytest.param("after_id={5}&limit=3", 6, 9, True, id="after"),
        pytest.param("after_id={21}&limit=3", 22, 25, False, id="after-last"),
        pytest.param("after_id={24}", 25, 25, False, id="after-the-end"),
        pytest.param("before_id={5}&limit=3", 2, 5, True, id="before"),
        pytest.param("before_id={3}&limit=3", 0, 3, False, id="before-first"),
        pytest.param("before_id={0}", 0, 0, False, id="before-the-start"),
        pytest.param("after_id=msgbatch_01unknown", 0, 0, False, id="unknown-after"),
        pytest.param("before_id=msgbatch_01unknown", 0, 0, False, id="unknown-before"),
        pytest.param("limit=2&beta=true&nobody=knows", 0, 2, True, id="unknown-keys"),
    ],
)
def test_5_pages_in_both_directions(listed: Listed, query: str, start: int, end: int, *, has_more: bool) -> None:
    page = listed.served.call("GET", f"{PATH}?{query.format(*listed.ids)}").json()
    expected = listed.ids[start:end]
    assert [one["id"] for one in page["data"]] == expected
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((expected[0], expected[-1]) if expected else (None, None))


def test_5_a_pager_that_looks_for_an_empty_page_ends(listed: Listed) -> None:
    seen: list[str] = []
    page = listed.served.call("GET", f"{PATH}?limit=10").json()
    while page["data"]:
        seen += [one["id"] for one in page["data"]]
        page = listed.served.call("GET", f"{PATH}?limit=10&after_id={page['last_id']}").json()
    assert seen == listed.ids


def test_5_a_pager_that_turns_towards_newer_items_ends(listed: Listed) -> None:
    seen: list[str] = []
    page = listed.served.call("GET", f"{PATH}?limit=10&after_id={listed.ids[14]}").json()
    while page["first_id"] is not None:
        seen += [one["id"] for one in reversed(page["data"])]
        page = listed.served.call("GET", f"{PATH}?limit=10&before_id={page['first_id']}").json()
    assert seen == listed.ids[::-1]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        pytest.param("limit=0", TEXT + "greater than or equal to 1", id="limit-0"),
        pytest.param("limit=-1", TEXT + "greater than or equal to 1", id="limit-negative"),
        pytest.param("limit=1001", TEXT + "less than or equal to 1000", id="limit-1001"),
        pytest.param("limit=x", TEXT + "a valid integer, unable to parse string as an integer", id="limit-text"),
        pytest.param("before_id=a&after_id=b", "before_id, after_id: Only one of the two may be given", id="both"),
    ],
)
def test_5_a_bad_query_is_refused(listed: Listed, query: str, text: str) -> None:
    assert listed.served.call("GET", f"{PATH}?{query}").error == (400, "invalid_request_error", text)


def test_0_9_an_empty_list_is_a_page(still: Served) -> None:
    assert still.call("GET", PATH).body == b'{"data":[],"has_more":false,"first_id":null,"last_id":null}'


def test_5_a_deleted_batch_vanishes_from_the_list(still: Served) -> None:
    kept, gone = still.create(), still.create()
    still.finish(gone)
    assert still.call("DELETE", f"{PATH}/{gone}").status == 200
    assert [one["id"] for one in still.call("GET", PATH).json()["data"]] == [kept]
