"""Sections 7, 8 and 14 of the contract: canceling and deleting."""

import json

import pytest

from contract.serving import Served

PATH = "/v1/messages/batches"
IN_PROGRESS = "In progress batches cannot be deleted. Consider canceling the batch instead."


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"", "application/json", id="python"),
        pytest.param(b"", None, id="typescript"),
        pytest.param(b"{}", "application/json", id="ruby"),
        pytest.param(None, None, id="nothing"),
        pytest.param(b"no json", "application/json", id="anything"),
    ],
)
def test_7_a_cancel_marks_the_batch_whatever_its_body(served: Served, body: bytes | None, content_type: str) -> None:
    batch_id = served.create("a", "b")
    answer = served.call("POST", f"{PATH}/{batch_id}/cancel", body, {"content-type": content_type})
    assert answer.status == 200
    canceling = answer.json()
    assert canceling["processing_status"] == "canceling"
    assert canceling["cancel_initiated_at"] is not None
    assert canceling["request_counts"]["processing"] == 2
    assert canceling["results_url"] is None
    assert canceling["ended_at"] is None


def test_7_a_canceled_batch_ends_with_a_line_for_each_request(served: Served) -> None:
    batch_id = served.create("a", "b")
    began = served.call("POST", f"{PATH}/{batch_id}/cancel").json()["cancel_initiated_at"]
    served.wait_ended(batch_id)
    ended = served.call("GET", f"{PATH}/{batch_id}").json()
    assert ended["processing_status"] == "ended"
    assert ended["cancel_initiated_at"] == began
    assert ended["request_counts"] == {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 2, "expired": 0}
    assert ended["results_url"] == f"{served.url}/v1/messages/batches/{batch_id}/results"
    lines = served.call("GET", f"{PATH}/{batch_id}/results").body.splitlines()
    assert sorted(lines) == [b'{"custom_id":"%b","result":{"type":"canceled"}}' % name for name in (b"a", b"b")]


def test_7_what_finished_before_a_cancel_is_kept(served: Served) -> None:
    batch_id = served.create("a", "b", "c")
    served.resolve(batch_id, ["b"])
    canceling = served.call("POST", f"{PATH}/{batch_id}/cancel").json()
    assert canceling["request_counts"]["processing"] == 3
    served.wait_ended(batch_id)
    counts = served.call("GET", f"{PATH}/{batch_id}").json()["request_counts"]
    assert counts == {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 2, "expired": 0}
    lines = [json.loads(line) for line in served.call("GET", f"{PATH}/{batch_id}/results").body.splitlines()]
    kinds = {line["custom_id"]: line["result"]["type"] for line in lines}
    assert kinds == {"a": "canceled", "b": "succeeded", "c": "canceled"}


def test_14_a_second_cancel_changes_nothing(still: Served) -> None:
    batch_id = still.create()
    first = still.call("POST", f"{PATH}/{batch_id}/cancel")
    still.clock.turn(1_000_000)
    second = still.call("POST", f"{PATH}/{batch_id}/cancel")
    assert (second.status, second.body) == (200, first.body)


def test_14_a_cancel_of_an_ended_batch_changes_nothing(served: Served) -> None:
    batch_id = served.create()
    served.finish(batch_id)
    before = served.call("GET", f"{PATH}/{batch_id}")
    answer = served.call("POST", f"{PATH}/{batch_id}/cancel")
    assert (answer.status, answer.body) == (200, before.body)


def test_8_a_batch_in_progress_is_not_deleted(still: Served) -> None:
    batch_id = still.create()
    answer = still.call("DELETE", f"{PATH}/{batch_id}")
    assert answer.error == (400, "invalid_request_error", IN_PROGRESS)
    assert answer.headers["x-should-retry"] == "false"


def test_14_a_canceling_batch_is_not_deleted(still: Served) -> None:
    batch_id = still.create()
    still.call("POST", f"{PATH}/{batch_id}/cancel")
    assert still.call("DELETE", f"{PATH}/{batch_id}").error == (400, "invalid_request_error", IN_PROGRESS)


@pytest.mark.parametrize("content_type", ["application/json", None])
def test_8_a_deleted_batch_is_gone_for_every_operation(served: Served, content_type: str | None) -> None:
    batch_id = served.create()
    served.finish(batch_id)
    answer = served.call("DELETE", f"{PATH}/{batch_id}", None, {"content-type": content_type})
    assert (answer.status, answer.body) == (200, f'{{"id":"{batch_id}","type":"message_batch_deleted"}}'.encode())
    expected = (404, "not_found_error", f"Message Batch {batch_id} not found.")
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/results")):
        assert served.call(method, f"{PATH}/{batch_id}{tail}").error == expected
