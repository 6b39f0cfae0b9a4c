"""Sections 1.2, 1.3, 4.2 and 10 of the contract for those who bring a key: scopes, models, limits, by raw calls and SDK."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from contract.model_server import ModelServer
from contract.serving import Served, requests
from lowtide.domain.keys import Scope
from lowtide.ports.access import WorkspaceLimits
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream
from support.access import Holder, holder

PATH = "/v1/messages/batches"
PARAMS: dict[str, Any] = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def behind() -> Iterator[ModelServer]:
    with ModelServer() as behind:
        yield behind


@pytest.fixture(scope="module")
def keyed(behind: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that wants keys, with a worker and a model server that has every model."""
    config = UpstreamConfig("up", behind.url)
    with Served(tmp_path_factory.mktemp("keyed"), lambda: [MessagesUpstream(config)], worker=True) as keyed:
        keyed.run(holder(keyed.store))
        yield keyed


def made(keyed: Served, workspace: str = "default", **changes: Any) -> Holder:
    return keyed.run(holder(keyed.store, workspace, **changes))


def message(keyed: Served, key: Holder, model: str, path: str = "/v1/messages") -> tuple[int, str, str] | int:
    answer = keyed.call("POST", path, json.dumps({**PARAMS, "model": model}).encode(), key.headers)
    return answer.status if answer.status == 200 else answer.error


def test_10_whoever_brings_no_key_or_a_wrong_one_is_told_so(keyed: Served) -> None:
    for headers, text in (
        ({"x-api-key": None}, "x-api-key header is required"),
        ({"x-api-key": "any"}, "invalid x-api-key"),
        ({"x-api-key": None, "authorization": "Bearer any"}, "Invalid bearer token"),
    ):
        answer = keyed.call("GET", PATH, headers=headers)
        assert answer.error == (401, "authentication_error", text)
        assert answer.headers["x-should-retry"] == "false"
        assert "anthropic-organization-id" not in answer.headers


def test_10_a_wrong_key_comes_before_a_missing_version_and_after_the_path(keyed: Served) -> None:
    bare: dict[str, str | None] = {"x-api-key": "any", "anthropic-version": None}
    assert keyed.call("GET", PATH, headers=bare).status == 401
    assert keyed.call("GET", "/v1/nowhere", headers=bare).status == 404
    assert keyed.call("PUT", PATH, headers=bare).status == 405


def test_1_3_the_answer_names_the_workspace_of_the_key(keyed: Served) -> None:
    key = made(keyed, "named")
    assert keyed.call("GET", PATH, headers=key.headers).headers["anthropic-workspace-id"] == key.key.workspace.id


def test_a_key_may_do_what_its_scopes_say(keyed: Served) -> None:
    batches, messages = made(keyed, scopes=frozenset({Scope.BATCHES})), made(keyed, scopes=frozenset({Scope.MESSAGES}))
    lacks = (403, "permission_error", "This API key does not have the scope `{}`")
    assert keyed.call("GET", PATH, headers=batches.headers).status == 200
    assert message(keyed, messages, "m") == 200
    assert message(keyed, batches, "m") == (*lacks[:2], lacks[2].format("messages"))
    assert keyed.call("GET", PATH, headers=messages.headers).error == (*lacks[:2], lacks[2].format("batches"))
    for key in (batches, messages):
        assert keyed.call("GET", "/v1/models", headers=key.headers).status == 200


def test_a_key_calls_and_sees_only_the_models_that_it_may_use(keyed: Served) -> None:
    key = made(keyed, models=("small-*", "m"))
    assert message(keyed, key, "m") == 200
    refused = (403, "permission_error", "This API key may not use the model large")
    assert message(keyed, key, "large") == refused
    assert message(keyed, key, "large", "/v1/messages/count_tokens") == refused
    assert keyed.call("GET", "/v1/models/large", headers=key.headers).error == (404, "not_found_error", "model: large")
    every = {each["id"] for each in keyed.call("GET", "/v1/models", headers=made(keyed).headers).json()["data"]}
    seen = {each["id"] for each in keyed.call("GET", "/v1/models", headers=key.headers).json()["data"]}
    assert seen == {name for name in every if name == "m" or name.startswith("small-")}


def test_4_2_a_model_that_the_key_may_not_use_errors_its_own_request_alone(keyed: Served, behind: ModelServer) -> None:
    key = made(keyed, models=("m", "small-*"))
    wanted = [{"custom_id": model, "params": {**PARAMS, "model": model}} for model in ("m", "small-1", "large")]
    with Anthropic(base_url=keyed.url, api_key=key.text) as client:
        batch = client.messages.batches.create(requests=wanted)  # type: ignore[arg-type]
        keyed.wait_ended(batch.id)
        found = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert [found[name].type for name in ("m", "small-1", "large")] == ["succeeded", "succeeded", "errored"]
    error = found["large"].error  # type: ignore[union-attr]
    assert (error.error.type, error.error.message) == (
        "permission_error",
        "This API key may not use the model large",
    )
    assert all(b'"large"' not in seen.body for seen in behind.seen)
    assert all(":models" not in seen.headers for seen in behind.seen)
    assert "small-" not in str([seen.headers for seen in behind.seen])


def test_11_a_workspaces_calls_are_limited_and_the_answer_says_when_to_come_back(keyed: Served) -> None:
    key = made(keyed, "busy")
    keyed.run(keyed.store.set_limits("busy", WorkspaceLimits(calls_per_minute_max=3)))
    answers = [keyed.call("GET", PATH, headers=key.headers) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["anthropic-ratelimit-requests-remaining"] for answer in answers[:4]] == ["2", "1", "0", "0"]
    for answer in answers:
        assert answer.headers["anthropic-ratelimit-requests-limit"] == "3"
        assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert answers[3].error == (
        429,
        "rate_limit_error",
        "This request would exceed your workspace's rate limit of 3 requests per minute. Please try again later.",
    )
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert "x-should-retry" not in answers[3].headers
    with (
        Anthropic(base_url=keyed.url, auth_token=key.text, max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.batches.list()
    assert caught.value.response.headers["retry-after"]
    assert keyed.call("GET", PATH, headers=made(keyed, "idle").headers).status == 200


def test_11_a_workspace_without_a_limit_is_told_of_none(keyed: Served) -> None:
    headers = keyed.call("GET", PATH, headers=made(keyed, "free").headers).headers
    assert not [name for name in headers if name.startswith("anthropic-ratelimit")]


def test_11_a_workspaces_own_limit_of_queued_requests_counts(keyed: Served) -> None:
    key = made(keyed, "narrow")
    keyed.run(keyed.store.set_limits("narrow", WorkspaceLimits(queued_requests_max=2)))
    answer = keyed.call("POST", PATH, requests("a", "b", "c"), key.headers)
    assert answer.error[:2] == (429, "rate_limit_error")
    assert "limit of 2 requests in processing" in answer.error[2]
    assert keyed.call("POST", PATH, requests("a", "b"), key.headers).status == 200
