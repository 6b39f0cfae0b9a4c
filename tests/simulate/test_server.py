"""The official SDK and plain calls against a simulated server, over real sockets."""

import base64
import json
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a client need not read all certificates for http
Serve = Callable[..., AbstractContextManager[str]]

HELLO = [{"role": "user", "content": "How high does the water stand at noon?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 9},
        "kind": {"enum": ["ebb", "flood"]},
        "metres": {"type": "number", "minimum": 1, "maximum": 6},
        "hours": {"type": "array", "items": {"$ref": "#/$defs/Hour"}, "minItems": 2},
        "note": {"type": ["string", "null"]},
    },
    "$defs": {"Hour": {"type": "integer", "minimum": 0, "maximum": 23}},
    "required": ["place", "kind", "metres", "hours"],
}


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as made:
        yield made


def ask(client: anthropic.Anthropic, **changes: object) -> anthropic.types.Message:
    return client.messages.create(**({"model": "any", "max_tokens": 50, "messages": HELLO} | changes))


def post(url: str, body: dict | bytes, **headers: str) -> httpx2.Response:
    return httpx2.post(
        f"{url}/v1/messages",
        content=body if isinstance(body, bytes) else json.dumps(body),
        headers=headers,
        verify=NO_TLS,
    )


def test_a_reply_says_that_it_is_simulated_and_counts_its_tokens(client: anthropic.Anthropic) -> None:
    reply = ask(client)
    assert reply.content[0].text.startswith("[simulated]")
    assert (reply.model, reply.role, reply.type) == ("any", "assistant", "message")
    assert 0 < reply.usage.output_tokens <= 50
    assert reply.usage.input_tokens > 5
    raw = client.messages.with_raw_response.create(model="any", max_tokens=5, messages=HELLO)
    assert raw.headers["server"] == "lowtide-simulate"
    assert raw.headers["request-id"].startswith("req_01")


def test_the_same_call_gets_the_same_reply_and_another_seed_another(client: anthropic.Anthropic, start: Serve) -> None:
    assert ask(client).content == ask(client).content
    assert ask(client).id != ask(client).id
    with start("--speed", "0", "--seed", "5") as other, anthropic.Anthropic(base_url=other, api_key="x") as second:
        assert ask(second, max_tokens=999).content != ask(client, max_tokens=999).content


def test_max_tokens_cuts_the_reply(client: anthropic.Anthropic) -> None:
    reply = ask(client, max_tokens=4)
    assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 4)
    assert ask(client, max_tokens=9_999).stop_reason == "end_turn"
    assert ask(client, max_tokens=0).content == []


def test_lengths_spread_around_the_median(client: anthropic.Anthropic) -> None:
    lengths = sorted(
        ask(client, max_tokens=9_999, messages=[{"role": "user", "content": f"Question {number}"}]).usage.output_tokens
        for number in range(60)
    )
    assert 70 < lengths[30] < 200
    assert lengths[0] < 60
    assert lengths[-1] > 240


def test_a_stop_sequence_ends_the_reply(client: anthropic.Anthropic) -> None:
    reply = ask(client, stop_sequences=["nowhere", "] "])
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "] ")
    assert reply.content[0].text == "[simulated"


def test_a_stream_brings_the_same_message_as_a_plain_call(client: anthropic.Anthropic) -> None:
    plain = ask(client)
    with client.messages.stream(model="any", max_tokens=50, messages=HELLO) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert streamed.content[0].text == plain.content[0].text
    assert (streamed.stop_reason, streamed.usage.output_tokens) == (plain.stop_reason, plain.usage.output_tokens)
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_events_stand_in_the_contracts_order(url: str) -> None:
    body = {"model": "m", "max_tokens": 20, "stream": True, "messages": HELLO}
    reply = post(url, body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix("event: ") for line in reply.text.splitlines() if line.startswith("event: ")]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_forced_tool_is_called_with_input_that_fits_its_schema(
    client: anthropic.Anthropic, *, streamed: bool
) -> None:
    call = {
        "model": "m",
        "max_tokens": 300,
        "messages": HELLO,
        "tools": [{"name": "store", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "store"},
    }
    if streamed:
        with client.messages.stream(**call) as stream:
            reply = stream.get_final_message()
    else:
        reply = client.messages.create(**call)
    block = reply.content[0]
    assert (reply.stop_reason, block.type, block.name) == ("tool_use", "tool_use", "store")
    given = block.input
    assert set(SCHEMA["required"]) <= set(given) <= set(SCHEMA["properties"])
    assert len(given["place"]) <= 9
    assert given["kind"] in {"ebb", "flood"}
    assert 1 <= given["metres"] <= 6
    assert len(given["hours"]) >= 2
    assert all(0 <= hour <= 23 for hour in given["hours"])


def test_left_free_some_replies_call_a_tool_but_none_after_its_result(client: anthropic.Anthropic) -> None:
    tools = [{"name": "store", "input_schema": SCHEMA}]
    kinds = {
        ask(client, tools=tools, max_tokens=300, messages=[{"role": "user", "content": f"Tide {n}"}]).stop_reason
        for n in range(20)
    }
    assert kinds >= {"tool_use"}
    assert kinds & {"end_turn", "max_tokens"}
    result = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "stored"}]
    for n in range(10):
        turns = [{"role": "user", "content": f"Tide {n}"}, {"role": "user", "content": result}]
        assert ask(client, tools=tools, max_tokens=300, messages=turns).stop_reason != "tool_use"


def test_a_prompt_that_shows_an_object_gets_one_of_its_form(client: anthropic.Anthropic) -> None:
    system = 'Answer with JSON only: {"label": "allow|remove", "severity": 3, "reason": "one sentence"}'
    found = json.loads(ask(client, system=system, max_tokens=200).content[0].text)
    assert found["simulated"] is True
    assert found["label"] in {"allow", "remove"}
    assert 0 <= found["severity"] <= 3


def test_an_output_schema_is_kept(client: anthropic.Anthropic) -> None:
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    found = json.loads(ask(client, output_config=form, max_tokens=300).content[0].text)
    assert set(SCHEMA["required"]) <= set(found)


def test_images_count_as_tokens_and_urls_are_not_fetched(client: anthropic.Anthropic) -> None:
    head = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (750).to_bytes(4, "big") + (100).to_bytes(4, "big") + b"\0" * 20
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(head).decode()}
    image = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    assert 100 <= ask(client, messages=image).usage.input_tokens <= 103
    away = [
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x.example/a.png"}}]}
    ]
    with pytest.raises(anthropic.BadRequestError, match="Unable to download the file"):
        ask(client, messages=away)
    broken = [{"role": "user", "content": [{"type": "image", "source": source | {"data": "%%%"}}]}]
    with pytest.raises(anthropic.BadRequestError, match="Could not process image"):
        ask(client, messages=broken)


def test_usage_splits_the_prompt_at_its_last_breakpoint(client: anthropic.Anthropic) -> None:
    system = [
        {"type": "text", "text": "The harbour's rules. " * 100, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    plain = ask(client, system=system[0]["text"] + "!").usage
    assert (plain.cache_creation_input_tokens, plain.cache_read_input_tokens) == (0, 0)
    first, second = ask(client, system=system).usage, ask(client, system=system).usage
    for usage in (first, second):
        total = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
        assert abs(total - plain.input_tokens) <= 1
    assert second.cache_read_input_tokens > 500
    assert second.cache_creation.ephemeral_1h_input_tokens == second.cache_creation_input_tokens < 16


def test_tokens_are_counted_as_usage_counts_them(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="any", messages=HELLO)
    assert counted.input_tokens == ask(client).usage.input_tokens


def test_models_are_listed_page_by_page_and_any_name_answers(client: anthropic.Anthropic) -> None:
    first = client.models.list(limit=2)
    assert len(first.data) == 2
    assert first.has_more
    assert len(list(first)) == 3
    back = client.models.list(limit=1, before_id=first.data[1].id)
    assert [model.id for model in back.data] == [first.data[0].id]
    assert client.models.retrieve("qwen3/8b").display_name == "Simulated qwen3/8b"


def test_with_a_list_of_models_no_other_exists(start: Serve) -> None:
    with start("--speed", "0", "--models", "a,b") as url, anthropic.Anthropic(base_url=url, api_key="x") as client:
        assert [model.id for model in client.models.list()] == ["a", "b"]
        assert ask(client, model="b").model == "b"
        for call in (lambda: ask(client, model="c"), lambda: client.models.retrieve("c")):
            with pytest.raises(anthropic.NotFoundError) as caught:
                call()
            assert caught.value.body["error"] == {"type": "not_found_error", "message": "model: c"}


def test_a_wanted_key_is_taken_from_either_header(start: Serve) -> None:
    with start("--speed", "0", "--api-key", "sesame") as url:
        body = {"model": "m", "max_tokens": 1, "messages": HELLO}
        assert post(url, body).status_code == 401
        assert post(url, body, **{"x-api-key": "sesame"}).status_code == 200
        assert post(url, body, authorization="Bearer sesame").status_code == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "The request body is not valid JSON: Input data was truncated"),
        (b"[" * 100_000, "The request body is not valid JSON"),
        (b"[]", "Input should be a valid dictionary"),
        ({}, "model: Field required"),
        ({"model": "m"}, "max_tokens: Field required"),
        ({"model": "m", "max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"model": "m", "max_tokens": -1}, "max_tokens: must be greater than or equal to"),
        ({"model": "m", "max_tokens": 1}, "messages: Field required"),
        ({"model": "m", "max_tokens": 1, "messages": []}, "messages: at least one message is required"),
        ({"model": "m", "max_tokens": 1, "messages": [1]}, "messages.0: Input should be a valid dictionary"),
        ({"model": "m", "max_tokens": 1, "messages": [{"role": "x"}]}, "messages.0.role: Input should be"),
        ({"model": "m", "max_tokens": 1, "messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"model": "m", "max_tokens": 1, "messages": HELLO, "tool_choice": {"type": "tool", "name": "t"}},
            "Tool 't' not found in provided tools",
        ),
    ],
)
def test_what_is_wrong_with_a_call_is_said_in_the_contracts_envelope(
    url: str, body: dict[str, Any] | bytes, text: str
) -> None:
    reply = post(url, body)
    assert reply.status_code == 400
    assert reply.headers["x-should-retry"] == "false"
    envelope = reply.json()
    assert envelope["type"] == "error"
    assert envelope["error"]["type"] == "invalid_request_error"
    assert envelope["error"]["message"].startswith(text)
    assert envelope["request_id"] == reply.headers["request-id"]


def test_a_prompt_past_the_context_is_refused(start: Serve) -> None:
    with start("--speed", "0", "--max-model-len", "50") as url:
        reply = post(url, {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * 400}]})
        assert reply.status_code == 400
        assert reply.json()["error"]["message"].startswith("prompt is too long: 1")
        near = post(url, {"model": "m", "max_tokens": 900, "messages": [{"role": "user", "content": "x" * 160}]})
        assert near.json()["stop_reason"] == "model_context_window_exceeded"


def test_unknown_paths_and_methods_have_the_envelope_too(url: str) -> None:
    assert httpx2.get(f"{url}/v1/nothing", verify=NO_TLS).json()["error"] == {
        "type": "not_found_error",
        "message": "Not found",
    }
    wrong = httpx2.get(f"{url}/v1/messages", verify=NO_TLS)
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (405, "Method Not Allowed")


def test_metrics_bear_vllms_names_and_add_up(start: Serve) -> None:
    with start("--speed", "0") as url:
        for _ in range(3):
            post(url, {"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": "tide " * 100}]})
        with urllib.request.urlopen(f"{url}/metrics") as reply:
            lines = reply.read().decode().splitlines()
    values = {line.split("{")[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}
    assert values["vllm:num_requests_running"] == values["vllm:num_requests_waiting"] == 0
    assert values["vllm:kv_cache_usage_perc"] == 0
    assert values["vllm:generation_tokens_total"] == 21
    assert values["vllm:request_success_total"] == 3
    assert values["vllm:prompt_tokens_total"] == values["vllm:prefix_cache_queries_total"]
    assert values["vllm:prefix_cache_hits_total"] == 2 * 112  # seven full blocks of the 127 tokens


def test_an_address_beyond_this_machine_is_refused_unless_asked_for(start: Serve) -> None:
    with pytest.raises(AssertionError, match="did not start"), start("--host", "0.0.0.0"):
        pytest.fail("it listened")


def test_the_log_has_a_line_per_call_and_no_text(start: Serve, tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    with start("--speed", "0", "--log", str(log)) as url:
        for _ in range(2):
            post(
                url,
                {
                    "model": "m",
                    "max_tokens": 7,
                    "messages": [{"role": "user", "content": "[[simulate: id=a1]] secret"}],
                },
            )
        post(url, {"model": "m", "max_tokens": 7, "messages": HELLO})
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["a1", "a1", None]
    assert lines[0]["digest"] == lines[1]["digest"] != lines[2]["digest"]
    assert "secret" not in log.read_text()
