"""Sections 0, 1 and 10 of the contract: what holds for every call, whatever its path."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from contract.serving import HEADERS, Served, requests

PATH = "/v1/messages/batches"
EVERY_PATH = [PATH, f"{PATH}/x", f"{PATH}/x/results", "/v1/messages", "/v1/models", "/nowhere", "/healthz"]


@pytest.mark.parametrize("path", EVERY_PATH)
def test_1_3_every_response_carries_its_ids(served: Served, path: str) -> None:
    headers = served.call("GET", path).headers
    assert re.fullmatch(r"req_01[1-9A-HJ-NP-Za-km-z]{22}", headers["request-id"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["anthropic-organization-id"])
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", [PATH, f"{PATH}/x", f"{PATH}/x/results", "/v1/models"])
def test_1_3_the_answer_to_a_caller_names_its_workspace(served: Served, path: str) -> None:
    assert served.call("GET", path).headers["anthropic-workspace-id"].startswith("wrkspc_01")


def test_1_3_request_ids_differ(served: Served) -> None:
    assert len({served.call("GET", PATH).headers["request-id"] for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-api-key": "k", "authorization": None}, id="x-api-key"),
        pytest.param({"x-api-key": None, "authorization": "Bearer k"}, id="bearer"),
        pytest.param({"x-api-key": "k", "authorization": "Bearer other"}, id="both"),
        pytest.param({"x-api-key": None}, id="none"),
    ],
)
def test_0_1_both_forms_of_a_key_are_accepted(served: Served, headers: dict[str, str | None]) -> None:
    assert served.call("GET", PATH, headers=headers).status == 200


def test_0_1_the_same_key_in_either_form_is_the_same_caller(served: Served) -> None:
    first = served.create("form", headers={"x-api-key": "one", "x-stainless-retry-count": "0"})
    again: dict[str, str | None] = {"x-api-key": None, "authorization": "Bearer one", "x-stainless-retry-count": "1"}
    assert served.create("form", headers=again) == first


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21", "2031-01-01", "latest"])
def test_0_2_any_version_is_accepted(served: Served, version: str) -> None:
    assert served.call("GET", PATH, headers={"anthropic-version": version}).status == 200


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", PATH), ("POST", "/v1/messages")])
def test_1_2_a_call_without_a_version_is_refused(served: Served, method: str, path: str) -> None:
    answer = served.call(method, path, None, {"anthropic-version": None})
    assert answer.error == (400, "invalid_request_error", "anthropic-version: header is required")


@pytest.mark.parametrize("beta", ["message-batches-2024-09-24", "nobody-knows-2030-01-01, another", ""])
def test_0_12_any_beta_is_accepted(served: Served, beta: str) -> None:
    headers: dict[str, str | None] = {"anthropic-beta": beta, "x-stainless-new-thing": "1"}
    assert served.call("POST", f"{PATH}?beta=true&other=1", requests("a"), headers).status == 200
    assert served.call("GET", f"{PATH}?beta=true", headers=headers).status == 200


@pytest.mark.parametrize("name", ["anthropic-beta", "anthropic-version", "anthropic-user-profile-id"])
def test_1_2_a_header_that_could_not_go_on_is_refused(served: Served, name: str) -> None:
    answer = served.call("POST", PATH, requests("a"), {name: "caf\u00e9"})
    assert answer.error == (400, "invalid_request_error", f"{name}: Input should be printable ASCII")


def test_1_2_a_workspace_that_is_the_keys_is_accepted_and_another_is_not(served: Served) -> None:
    own = served.call("GET", PATH).headers["anthropic-workspace-id"]
    assert served.call("GET", PATH, headers={"anthropic-workspace-id": own}).status == 200
    answer = served.call("GET", PATH, headers={"anthropic-workspace-id": "wrkspc_01other"})
    assert answer.error[:2] == (400, "invalid_request_error")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nowhere", f"{PATH}/", f"{PATH}/x/y", "/V1/messages", "//"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_10_an_unknown_path_is_not_found(served: Served, method: str, path: str) -> None:
    answer = served.call(method, path)
    assert answer.error == (404, "not_found_error", "Not found")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", PATH, "GET, HEAD, POST"),
        ("PATCH", f"{PATH}/x", "DELETE, GET, HEAD"),
        ("GET", f"{PATH}/x/cancel", "POST"),
        ("POST", f"{PATH}/x/results", "GET, HEAD"),
        ("GET", "/v1/messages", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_10_another_method_is_not_allowed(served: Served, method: str, path: str, allow: str) -> None:
    answer = served.call(method, path)
    assert answer.error == (405, "invalid_request_error", "Method Not Allowed")
    assert answer.headers["allow"] == allow


def test_head_goes_wherever_get_does(served: Served) -> None:
    batch_id = served.create()
    for path in (PATH, f"{PATH}/{batch_id}", "/healthz", "/readyz"):
        get, head = served.call("GET", path), served.call("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_what_is_no_http_is_refused_in_the_envelope(served: Served) -> None:
    answered = served.exchange(b"\x16\x03\x01 hello\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nrequest-id: req_01" in answered
    assert b'{"type":"error","error":{"type":"invalid_request_error",' in answered


def test_a_process_says_that_it_lives_and_that_it_is_ready(served: Served) -> None:
    assert served.call("GET", "/healthz", headers={"anthropic-version": None}).body == b'{"status":"ok"}'
    assert served.call("GET", "/readyz", headers={"anthropic-version": None}).body == b'{"status":"ready"}'


def results_url(served: Served, headers: dict[str, str | None] | None = None) -> str:
    batch_id = served.create()
    served.finish(batch_id)
    url = str(served.call("GET", f"{PATH}/{batch_id}", headers=headers).json()["results_url"])
    assert url.endswith(f"{PATH}/{batch_id}/results")
    return url.removesuffix(f"{PATH}/{batch_id}/results")


def test_0_3_results_url_is_the_host_that_the_client_called(served: Served) -> None:
    assert results_url(served) == served.url
    assert results_url(served, {"host": "lowtide.example:1234"}) == "http://lowtide.example:1234"


def test_14_forwarded_headers_of_an_untrusted_peer_do_not_count(served: Served) -> None:
    assert results_url(served, {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}) == served.url


def test_14_forwarded_headers_of_a_trusted_proxy_count(tmp_path: Path) -> None:
    with Served(tmp_path, trusted_proxies=[ip_network("127.0.0.0/8")]) as served:
        forwarded: dict[str, str | None] = {"x-forwarded-host": "b.example", "x-forwarded-proto": "https"}
        assert results_url(served, forwarded) == "https://b.example"


def test_14_a_public_url_is_the_base_of_results_url(tmp_path: Path) -> None:
    with Served(tmp_path, public_url="https://public.example/tide") as served:
        assert results_url(served, dict(HEADERS)) == "https://public.example/tide"
