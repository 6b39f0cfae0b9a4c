"""Section 4 of the contract: what a create refuses, what it leaves for later, and what it answers."""

import asyncio
import gzip
import json
import re
import socket
import threading
from pathlib import Path

import pytest

from contract.serving import Served, requests
from lowtide.domain.limits import Limits

PATH = "/v1/messages/batches"
ITEM = '{"custom_id":"a","params":{}}'
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
INVALID = "invalid_request_error"


def test_3_a_new_batch_has_the_contracts_bytes(served: Served) -> None:
    answer = served.call("POST", PATH, requests("a", "b"))
    assert answer.status == 200
    created = answer.json()
    expected = (
        f'{{"id":"{created["id"]}","type":"message_batch","processing_status":"in_progress",'
        '"request_counts":{"processing":2,"succeeded":0,"errored":0,"canceled":0,"expired":0},"ended_at":null,'
        f'"created_at":"{created["created_at"]}","expires_at":"{created["expires_at"]}",'
        '"archived_at":null,"cancel_initiated_at":null,"results_url":null}'
    )
    assert answer.body == expected.encode()
    assert re.fullmatch(r"msgbatch_01[1-9A-HJ-NP-Za-km-z]{22}", created["id"])


def test_2_a_batch_expires_24_hours_after_its_creation_to_the_microsecond(served: Served) -> None:
    created = served.call("POST", PATH, requests("a")).json()
    assert TIME.fullmatch(created["created_at"])
    assert TIME.fullmatch(created["expires_at"])
    assert created["created_at"][10:] == created["expires_at"][10:]
    assert created["created_at"][:10] < created["expires_at"][:10]


def test_1_3_a_create_has_the_contracts_headers(served: Served) -> None:
    headers = served.call("POST", PATH, requests("a")).headers
    assert headers["content-type"] == "application/json"
    assert headers["request-id"].startswith("req_01")
    assert headers["anthropic-organization-id"].count("-") == 4
    assert headers["anthropic-workspace-id"].startswith("wrkspc_")
    assert "retry-after" not in headers
    assert "x-should-retry" not in headers


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param("{}", "requests: Field required", id="requests-absent"),
        pytest.param(
            '{"requests":[]}', "requests: List should have at least 1 item after validation, not 0", id="no-requests"
        ),
        pytest.param(
            '{"requests":[' + ",".join(f'{{"custom_id":"r{n}","params":{{}}}}' for n in range(51)) + "]}",
            "requests: List should have at most 50 items after validation, not 51",
            id="too-many",
        ),
        pytest.param('{"requests":[{"params":{}}]}', "requests.0.custom_id: Field required", id="custom_id-missing"),
        pytest.param(
            f'{{"requests":[{{"custom_id":"{"a" * 65}","params":{{}}}}]}}',
            "requests.0.custom_id: String should have at most 64 characters",
            id="custom_id-65",
        ),
        pytest.param(
            '{"requests":[{"custom_id":"a b","params":{}}]}',
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
            id="custom_id-characters",
        ),
        pytest.param(
            '{"requests":[{"custom_id":"","params":{}}]}',
            "requests.0.custom_id: String should have at least 1 character",
            id="custom_id-empty",
        ),
        pytest.param(
            f'{{"requests":[{ITEM},{ITEM.replace("a", "dup", 1).replace("dup", "a", 1)}]}}',
            "requests: custom_id's must be unique within a batch. Duplicate custom_id found: a",
            id="custom_id-twice",
        ),
        pytest.param(f'{{"requests":[{ITEM}],"foo":1}}', "foo: Extra inputs are not permitted", id="unknown-key"),
        pytest.param(
            '{"requests":[{"custom_id":"a","params":{},"foo":1}]}',
            "requests.0.foo: Extra inputs are not permitted",
            id="unknown-item-key",
        ),
        pytest.param('{"requests":[{"custom_id":"a"}]}', "requests.0.params: Field required", id="params-missing"),
    ],
)
def test_4_1_a_bad_create_is_refused_by_name(served: Served, body: str, text: str) -> None:
    answer = served.call("POST", PATH, body.encode())
    assert answer.error == (400, INVALID, text)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("params", ["1", "[]", '"x"', "null"])
def test_4_1_params_that_are_no_object_are_refused(served: Served, params: str) -> None:
    answer = served.call("POST", PATH, f'{{"requests":[{{"custom_id":"a","params":{params}}}]}}'.encode())
    status, error_type, text = answer.error
    assert (status, error_type) == (400, INVALID)
    assert text.startswith("requests.0.params: Input should be a valid dictionary")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"requests":[}', b"not json", b'{"requests":[{"custom_id":"\xff","params":{}}]}']
)
def test_4_1_a_body_that_is_no_json_is_refused(served: Served, body: bytes) -> None:
    status, error_type, text = served.call("POST", PATH, body).error
    assert (status, error_type) == (400, INVALID)
    assert text.startswith("The request body is not valid JSON: ")


def test_4_1_a_body_past_the_limit_is_refused_with_the_full_envelope(served: Served) -> None:
    answer = served.call("POST", PATH, requests("a", system="x" * 70_000))
    assert answer.error == (413, "request_too_large", "Request exceeds the maximum size")


def test_4_1_a_chunked_body_past_the_limit_is_refused_too(served: Served) -> None:
    answer = served.call("POST", PATH, iter([b" " * 30_000] * 3))
    assert answer.error == (413, "request_too_large", "Request exceeds the maximum size")


def test_a_chunked_body_is_accepted(served: Served) -> None:
    body = requests("a", "b")
    assert served.call("POST", PATH, iter([body[:10], body[10:]])).json()["request_counts"]["processing"] == 2


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"messages": []}, id="no-messages"),
        pytest.param({"model": "claude-does-not-exist-9"}, id="unknown-model"),
        pytest.param({"max_tokens": 0}, id="max_tokens-0"),
        pytest.param({"stream": True}, id="stream"),
        pytest.param({"stream": False}, id="stream-false"),
        pytest.param({"speed": "fast"}, id="speed"),
        pytest.param({"nobody_knows": {"this": "key"}}, id="unknown-param"),
        pytest.param({"service_tier": "auto"}, id="service_tier"),
    ],
)
def test_4_2_what_params_hold_is_judged_later(served: Served, params: dict[str, object]) -> None:
    assert served.call("POST", PATH, requests("a", **params)).status == 200


def test_4_2_empty_params_are_judged_later(served: Served) -> None:
    assert served.call("POST", PATH, b'{"requests":[{"custom_id":"a","params":{}}]}').status == 200


def test_4_1_a_full_queue_is_told_with_a_time_to_try_again(tmp_path: Path) -> None:
    with Served(tmp_path, limits=Limits(queued_requests_max=3)) as served:
        served.create("a", "b")
        answer = served.call("POST", PATH, requests("a", "b"))
        assert answer.error[:2] == (429, "rate_limit_error")
        assert int(answer.headers["retry-after"]) > 0
        assert "x-should-retry" not in answer.headers
        served.create("c")


@pytest.mark.parametrize("where", ['"custom_id":"\\ud83d","params":{}', '"custom_id":"a","params":{"x":"\\ud83d"}'])
def test_4_1_half_a_surrogate_pair_is_refused(served: Served, where: str) -> None:
    status, error_type, text = served.call("POST", PATH, f'{{"requests":[{{{where}}}]}}'.encode()).error
    assert (status, error_type) == (400, INVALID)
    assert text.startswith("The request body is not valid JSON: ")


def test_1_2_a_gzip_body_is_accepted(served: Served) -> None:
    body = gzip.compress(requests("a", "b", "c"))
    answer = served.call("POST", PATH, body, {"content-encoding": "gzip"})
    assert answer.json()["request_counts"]["processing"] == 3


def test_1_2_a_gzip_body_past_the_limit_once_decoded_is_refused(served: Served) -> None:
    body = gzip.compress(requests("a", system="x" * 70_000))
    assert served.call("POST", PATH, body, {"content-encoding": "gzip"}).error[:2] == (413, "request_too_large")


@pytest.mark.parametrize(("encoding", "body"), [("br", b"x"), ("gzip", b"no gzip")])
def test_1_2_an_encoding_that_cannot_be_read_is_refused(served: Served, encoding: str, body: bytes) -> None:
    assert served.call("POST", PATH, body, {"content-encoding": encoding}).error[:2] == (400, INVALID)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain; charset=utf-8", None]
)
def test_14_any_content_type_is_read_as_json(served: Served, content_type: str | None) -> None:
    assert served.call("POST", PATH, requests("a"), {"content-type": content_type}).status == 200


def test_1_2_a_body_may_wait_for_100_continue(served: Served) -> None:
    body = requests("a")
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: h\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n"
        f"content-length: {len(body)}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    )
    answered = served.exchange(head.encode() + body)
    assert answered.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_1_2_headers_that_go_with_each_request_are_kept_and_credentials_are_not(served: Served) -> None:
    body = requests("a")
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer secret\r\nanthropic-version: 2026-10-21\r\n"
        "anthropic-beta: one-2026-01-01, two\r\nanthropic-beta: three\r\nanthropic-user-profile-id: profile_1\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    answered = served.exchange(head.encode() + body)
    batch_id = json.loads(answered.partition(b"\r\n\r\n")[2])["id"]
    assert served.kept_headers(batch_id) == {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "one-2026-01-01, two,three",
        "anthropic-user-profile-id": "profile_1",
    }


def test_the_same_idempotency_key_and_body_is_the_same_batch(served: Served) -> None:
    first = served.create("a", headers={"idempotency-key": "k1"})
    assert served.create("a", headers={"idempotency-key": "k1"}) == first
    answer = served.call("POST", PATH, requests("b"), {"idempotency-key": "k1"})
    assert answer.error[:2] == (422, INVALID)
    assert answer.headers["x-should-retry"] == "false"


def test_a_retry_of_a_create_whose_answer_was_lost_is_the_same_batch(served: Served) -> None:
    first = served.create("lost-1", headers={"x-stainless-retry-count": "0"})
    assert served.create("lost-1", headers={"x-stainless-retry-count": "1"}) == first


def test_a_retry_of_a_create_that_was_named_since_is_another_batch(served: Served) -> None:
    first = served.create("lost-2", headers={"x-stainless-retry-count": "0"})
    served.call("GET", f"{PATH}/{first}")
    assert served.create("lost-2", headers={"x-stainless-retry-count": "1"}) != first


def test_0_11_two_equal_creates_on_purpose_are_two_batches(served: Served) -> None:
    assert served.create("same") != served.create("same")


def test_a_create_that_breaks_off_makes_no_batch(still: Served) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: h\r\nanthropic-version: 2023-06-01\r\ncontent-length: 10000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", still.port)) as connection:
        connection.sendall(head.encode() + requests("a"))
    made = still.create("b")
    assert [one["id"] for one in still.call("GET", PATH).json()["data"]] == [made]


def test_protocol_7_a_create_whose_client_left_before_the_commit_is_dropped(
    still: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left, put_file = threading.Event(), threading.Event(), still.objects.put_file

    async def put_then_wait(key: str, path: Path) -> None:
        await put_file(key, path)
        put.set()
        await asyncio.to_thread(left.wait)

    monkeypatch.setattr(still.objects, "put_file", put_then_wait)
    body = requests("a")
    head = f"POST {PATH} HTTP/1.1\r\nhost: h\r\nanthropic-version: 1\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", still.port)) as connection:
        connection.sendall(head.encode() + body)
        assert put.wait(30)
    still.call("GET", "/healthz")  # the server has seen the connection close once it answers a later one
    monkeypatch.undo()
    left.set()
    assert len(still.call("GET", PATH).json()["data"]) == 0
    made = still.create("b")
    assert [one["id"] for one in still.call("GET", PATH).json()["data"]] == [made]
