"""Sections 4.2 and 6 of the contract on the whole way: the SDK, the doors, intake, a worker, a model server, results."""

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic

from contract.model_server import ModelServer
from contract.serving import Served
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream

SAID = "caf\u00e9\u2028"
PARAMS: dict[str, Any] = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
NEVER: Any = None


@pytest.fixture(scope="module")
def behind() -> Iterator[ModelServer]:
    with ModelServer() as behind:
        yield behind


@pytest.fixture(scope="module")
def worked(behind: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = UpstreamConfig("up", behind.url, models=("m",), aliases=(("claude-*", "m"),))
    with Served(tmp_path_factory.mktemp("worked"), lambda: [MessagesUpstream(config)], worker=True) as worked:
        yield worked


@pytest.fixture(scope="module")
def client(worked: Served) -> Iterator[Anthropic]:
    with Anthropic(base_url=worked.url, api_key="test-key") as client:
        yield client


def run(client: Anthropic, worked: Served, requests: dict[str, dict[str, Any]], **extra: Any) -> dict[str, Any]:
    """Run a batch of these params by custom_id and return its results by custom_id."""
    wanted: Any = [{"custom_id": name, "params": params} for name, params in requests.items()]
    batch = client.messages.batches.create(requests=wanted, **extra)
    worked.wait_ended(batch.id)
    counts = client.messages.batches.retrieve(batch.id).request_counts
    lines = list(client.messages.batches.results(batch.id))
    found = {line.custom_id: line.result for line in lines}
    assert len(lines) == len(found) == len(requests)
    kinds = [result.type for result in found.values()]
    assert (counts.succeeded, counts.errored) == (kinds.count("succeeded"), kinds.count("errored"))
    return found


def test_6_every_request_comes_back_once(client: Anthropic, worked: Served) -> None:
    found = run(client, worked, {f"r{number}": PARAMS for number in range(100)})
    assert all(result.type == "succeeded" for result in found.values())
    message = found["r0"].message
    assert message.content[0].text == SAID
    assert message.usage.service_tier == "batch"
    assert message.usage.output_tokens == 2


def test_6_lines_stay_lines_whatever_the_model_server_sends(client: Anthropic, worked: Served) -> None:
    run(client, worked, {"a": PARAMS})
    newest = worked.call("GET", "/v1/messages/batches?limit=1").json()["data"][0]
    body = worked.call("GET", f"/v1/messages/batches/{newest['id']}/results").body
    assert body.count(b"\n") == len(body.decode().splitlines()) == 1


def test_1_2_a_batchs_headers_go_with_its_requests_and_the_credential_does_not(
    client: Anthropic, worked: Served, behind: ModelServer
) -> None:
    headers = {"anthropic-beta": "one,two", "anthropic-version": "2023-06-01"}
    run(client, worked, {"a": PARAMS}, extra_headers=headers)
    seen = behind.seen[-1].headers
    assert (seen["anthropic-beta"], seen["anthropic-version"]) == ("one,two", "2023-06-01")
    assert "test-key" not in str(seen)


def test_4_2_an_alias_is_known_to_the_upstream_by_its_own_name(
    client: Anthropic, worked: Served, behind: ModelServer
) -> None:
    run(client, worked, {"a": {**PARAMS, "model": "claude-opus-9"}})
    assert b'"model":"m"' in behind.seen[-1].body.replace(b" ", b"")


@pytest.mark.parametrize(
    ("params", "error_type", "text"),
    [
        pytest.param(
            {"messages": []}, "invalid_request_error", "messages: at least one message is required", id="messages-empty"
        ),
        pytest.param({"messages": NEVER}, "invalid_request_error", "messages: Field required", id="messages-absent"),
        pytest.param({"model": NEVER}, "invalid_request_error", "model: Field required", id="model-absent"),
        pytest.param(
            {"max_tokens": NEVER}, "invalid_request_error", "max_tokens: Field required", id="max_tokens-absent"
        ),
        pytest.param({"model": "claude_unknown"}, "not_found_error", "model: claude_unknown", id="unknown-model"),
        pytest.param(
            {"stream": True},
            "invalid_request_error",
            "`stream=True` is not supported in the Message Batches API",
            id="stream",
        ),
        pytest.param(
            {"max_tokens": 0},
            "invalid_request_error",
            "max_tokens: must be greater than or equal to 1",
            id="max_tokens-0",
        ),
    ],
)
def test_4_2_bad_params_error_their_own_request_alone(
    client: Anthropic, worked: Served, params: dict[str, Any], error_type: str, text: str
) -> None:
    bad = {name: value for name, value in (PARAMS | params).items() if value is not NEVER}
    found = run(client, worked, {"good": PARAMS, "bad": bad})
    assert found["good"].type == "succeeded"
    assert found["bad"].type == "errored"
    error = found["bad"].error
    assert (error.error.type, error.error.message, error.request_id) == (error_type, text, None)


def test_4_2_stream_false_is_accepted(client: Anthropic, worked: Served) -> None:
    assert run(client, worked, {"a": {**PARAMS, "stream": False}})["a"].type == "succeeded"


def test_4_2_speed_is_not_supported_in_batches(client: Anthropic, worked: Served) -> None:
    assert run(client, worked, {"a": {**PARAMS, "speed": "fast"}})["a"].type == "errored"
