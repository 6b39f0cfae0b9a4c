"""Section 12 of the contract: interactive calls and models, answered by the upstreams."""

import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contract.model_server import BARE_ERROR, ERROR, EVENTS, MESSAGE, ModelServer
from contract.serving import HEADERS, SMALL, Served
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"


@dataclass(frozen=True)
class Chain:
    """A client's view of a Lowtide, and the model server behind it."""

    served: Served
    behind: ModelServer


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with ModelServer() as behind, socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        configs = [
            UpstreamConfig("down", nobody, models=("down", "both")),
            UpstreamConfig(
                "up",
                behind.url,
                key="the-operators-key",
                models=("m", "failing", "bare", "breaking", "slow", "both", "old", "org/*"),
                aliases=(("claude-*", "m"), ("gpt", "m")),
            ),
        ]
        upstreams = [MessagesUpstream(config) for config in configs]
        with Served(tmp_path_factory.mktemp("chain"), lambda: upstreams, SMALL) as served:
            yield Chain(served, behind)


def body(model: str = "m", **more: object) -> bytes:
    return json.dumps({"model": model, "max_tokens": 5, "messages": [], **more}).encode()


def test_12_a_message_comes_through_to_the_byte(chain: Chain) -> None:
    answer = chain.served.call("POST", MESSAGES, body())
    assert (answer.status, answer.body) == (200, MESSAGE)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "50"
    assert [name for name, _ in answer.lines].count("request-id") == 1
    assert answer.headers["request-id"].startswith("req_01")
    assert "server" not in answer.headers


def test_12_a_call_goes_on_as_the_client_wrote_it(chain: Chain) -> None:
    sent = b'{"messages" : [], "n":1e2,\n"model":"m", "unknown":"\\u00e9"}'
    chain.served.call("POST", MESSAGES, sent, {"anthropic-beta": "b1,b2", "anthropic-version": "2026-10-21"})
    seen = chain.behind.seen[-1]
    assert (seen.path, seen.body) == (MESSAGES, sent)
    assert (seen.headers["anthropic-beta"], seen.headers["anthropic-version"]) == ("b1,b2", "2026-10-21")


def test_12_a_clients_credential_never_goes_on(chain: Chain) -> None:
    headers: dict[str, str | None] = {"x-api-key": "clients", "authorization": "Bearer clients", "cookie": "clients"}
    chain.served.call("POST", MESSAGES, body(), headers)
    seen = chain.behind.seen[-1]
    assert "clients" not in str(seen.headers)
    assert seen.headers["x-api-key"] == "the-operators-key"


@pytest.mark.parametrize("alias", ["claude-opus-9", "gpt"])
def test_12_an_alias_is_replaced_and_nothing_else(chain: Chain, alias: str) -> None:
    sent = b'{"max_tokens":1, "model" : "%b","messages":[{"model":"gpt"}]}' % alias.encode()
    assert chain.served.call("POST", MESSAGES, sent).status == 200
    assert chain.behind.seen[-1].body == sent.replace(b'"%b","mess' % alias.encode(), b'"m","mess')


def test_12_an_alias_under_an_escaped_key_is_refused(chain: Chain) -> None:
    assert chain.served.call("POST", MESSAGES, b'{"mod\\u0065l":"gpt"}').error[0] == 400


def test_12_a_gzip_body_goes_on_decoded(chain: Chain) -> None:
    assert chain.served.call("POST", MESSAGES, gzip.compress(body()), {"content-encoding": "gzip"}).status == 200
    assert chain.behind.seen[-1].body == body()


def test_12_a_stream_comes_through_event_by_event(chain: Chain) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", chain.served.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", MESSAGES, body(stream=True), HEADERS)
        response = connection.getresponse()
        assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
        for event in EVENTS:
            chain.behind.next_event.release()
            assert response.read(len(event)) == event
        assert response.read() == b""


def test_12_tokens_are_counted_by_the_upstream(chain: Chain) -> None:
    answer = chain.served.call("POST", COUNT, body())
    assert (answer.status, answer.body) == (200, b'{"input_tokens":7}')
    assert chain.behind.seen[-1].path == COUNT


def test_10_an_upstreams_error_comes_through_with_our_request_id(chain: Chain) -> None:
    answer = chain.served.call("POST", MESSAGES, body("failing"))
    assert answer.error == (429, "rate_limit_error", "slow down")
    assert answer.body == ERROR.replace(b"req_theirs", answer.headers["request-id"].encode())
    assert answer.headers["retry-after"] == "7"


def test_12_an_error_that_is_no_envelope_comes_through_as_it_is(chain: Chain) -> None:
    answer = chain.served.call("POST", MESSAGES, body("bare"))
    assert (answer.status, answer.body) == (404, BARE_ERROR)


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_12_an_unknown_model_is_not_found(chain: Chain, path: str) -> None:
    answer = chain.served.call("POST", path, body("nobody-has-it"))
    assert answer.error == (404, "not_found_error", "model: nobody-has-it")


def test_10_an_upstream_that_is_down_is_told_as_overload(chain: Chain) -> None:
    answer = chain.served.call("POST", MESSAGES, body("down"))
    assert answer.error == (529, "overloaded_error", "The model server cannot be reached")
    assert answer.headers["retry-after"] == "5"


def test_12_another_upstream_takes_what_one_that_is_down_cannot(chain: Chain) -> None:
    assert chain.served.call("POST", MESSAGES, body("both")).status == 200


def test_12_a_reply_that_breaks_off_is_an_incomplete_read(chain: Chain) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        chain.served.call("POST", MESSAGES, body("breaking"))


def test_12_a_client_that_leaves_ends_the_call_to_the_upstream(chain: Chain) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", chain.served.port, timeout=60)
    connection.request("POST", MESSAGES, body("slow"), HEADERS)
    assert chain.behind.arrived.wait(30)
    connection.close()
    assert chain.behind.gone.wait(30)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"{}", "model: Field required"),
        (b'{"model":1}', "model: Input should be a valid string"),
        (b'{"model":""}', "model: String should have at least 1 character"),
        (b"[]", "The request body is not valid JSON: Input should be a valid dictionary"),
    ],
)
def test_12_a_bad_call_is_refused_here(chain: Chain, sent: bytes, text: str) -> None:
    assert chain.served.call("POST", MESSAGES, sent).error == (400, "invalid_request_error", text)


def test_12_a_call_past_its_limit_is_refused(chain: Chain) -> None:
    answer = chain.served.call("POST", MESSAGES, body(system="x" * 20_000))
    assert answer.error == (413, "request_too_large", "Request exceeds the maximum size")


def test_12_models_are_those_of_all_upstreams_newest_first(chain: Chain) -> None:
    page = chain.served.call("GET", "/v1/models").json()
    assert list(page) == ["data", "has_more", "first_id", "last_id"]
    assert [model["id"] for model in page["data"]] == ["org/new", "old", "gpt"]
    first = page["data"][0]
    assert list(first)[:4] == ["type", "id", "display_name", "created_at"]
    assert first["created_at"] == "2026-01-01T00:00:00.000000+00:00"
    assert first["type"] == "model"


def test_12_models_are_paged(chain: Chain) -> None:
    first = chain.served.call("GET", "/v1/models?limit=1").json()
    assert (first["has_more"], first["last_id"]) == (True, "org/new")
    second = chain.served.call("GET", "/v1/models?limit=1&after_id=org/new").json()
    assert (second["has_more"], second["last_id"]) == (True, "old")
    assert chain.served.call("GET", "/v1/models?before_id=old").json()["first_id"] == "org/new"
    assert chain.served.call("GET", "/v1/models?limit=0").error[0] == 400


def test_12_an_alias_without_a_wildcard_is_a_model(chain: Chain) -> None:
    alias = chain.served.call("GET", "/v1/models/gpt").json()
    assert (alias["id"], alias["display_name"]) == ("gpt", "m")


@pytest.mark.parametrize("path", ["/v1/models/org/new", "/v1/models/org%2Fnew"])
def test_12_a_single_model_is_found_by_its_id(chain: Chain, path: str) -> None:
    assert chain.served.call("GET", path).json()["display_name"] == "New"


def test_12_an_unknown_model_has_no_page(chain: Chain) -> None:
    assert chain.served.call("GET", "/v1/models/nobody").error == (404, "not_found_error", "model: nobody")


def test_12_a_model_whose_upstream_is_down_is_not_unknown(chain: Chain) -> None:
    assert chain.served.call("GET", "/v1/models/down").error[:2] == (529, "overloaded_error")
