import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.dispatch.message import _as_any, _as_common
from lowtide.dispatch.problem import MESSAGE_CHARS_MAX
from lowtide.dispatch.reply import (
    RETRY_AFTER_MAX_S,
    Busy,
    Failed,
    Faulty,
    NoEndpoint,
    Refused,
    Succeeded,
    UnknownModel,
    Verdict,
    judge,
    retry_after_s,
)
from lowtide.domain.errors import RESULT_ERROR_TYPES, ErrorType
from lowtide.domain.outcomes import Usage
from lowtide.ports.upstream import Reply

USAGE: dict[str, Any] = {
    "input_tokens": 20,
    "cache_creation_input_tokens": 1,
    "cache_read_input_tokens": 2,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1},
    "output_tokens": 5,
    "service_tier": "batch",
    "inference_geo": "not_available",
}
MESSAGE: dict[str, Any] = {
    "model": "claude-haiku-4-5-20251001",
    "id": "msg_01AAAAAAAAAAAAAAAAAAAAAAAA",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "6"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "usage": USAGE,
}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def of(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> Verdict:
    text = body if isinstance(body, bytes) else encode(body)
    return judge(Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, text), model="asked")


def succeeded(body: bytes | dict[str, Any]) -> dict[str, Any]:
    verdict = of(body)
    assert isinstance(verdict, Succeeded), verdict
    assert b"\n" not in verdict.message
    got = json.loads(verdict.message)
    assert isinstance(got, dict)
    return got


# ------------------------------------------------------------------------------------------------ successes


def test_a_message_in_the_contracts_form_keeps_every_byte() -> None:
    assert of(MESSAGE) == Succeeded(encode(MESSAGE), Usage(20, 5, 1, 2))


def test_members_are_put_in_the_contracts_order_and_unknown_ones_follow() -> None:
    shuffled = {"container": {"id": "c"}, **dict(reversed(MESSAGE.items())), "usage": dict(reversed(USAGE.items()))}
    verdict = of(shuffled)
    assert verdict == Succeeded(encode({**MESSAGE, "container": {"id": "c"}}), Usage(20, 5, 1, 2))


counts = st.none() | st.integers(0, 10**6)


@given(
    st.fixed_dictionaries(
        {
            "model": st.text(min_size=1),
            "content": st.lists(st.fixed_dictionaries({"type": st.text(), "text": st.text()}), max_size=3),
            "stop_reason": st.sampled_from(["end_turn", "tool_use", "refusal"]),
            "usage": st.fixed_dictionaries(
                {}, optional={"input_tokens": counts, "output_tokens": counts, "cache_creation_input_tokens": counts}
            ),
        },
        optional={"stop_sequence": st.none(), "stop_details": json_values},
    )
)
def test_both_ways_of_reading_agree(changes: dict[str, Any]) -> None:
    body = encode({"id": "msg_1", "type": "message", "role": "assistant"} | changes)
    long = _as_any(body, "asked")
    short = _as_common(body)
    assert short is not None
    assert json.loads(short[0]) == json.loads(long[0])
    assert list(json.loads(short[0])["usage"]) == list(json.loads(long[0])["usage"])
    assert short[1] == long[1]


def test_usage_says_batch_and_keeps_what_else_was_reported() -> None:
    usage = USAGE | {
        "service_tier": "standard",
        "output_tokens_details": {"thinking_tokens": 3},
        "server_tool_use": None,
    }
    got = succeeded(MESSAGE | {"usage": usage})["usage"]
    assert got == usage | {"service_tier": "batch"}
    assert list(got) == [
        *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "output_tokens"),
        *("output_tokens_details", "service_tier", "inference_geo", "server_tool_use"),
    ]


@pytest.mark.parametrize("usage", [{}, None, {"input_tokens": None, "output_tokens": -5}, {"output_tokens": 10**18}])
def test_usage_that_is_missing_or_no_count_is_zero_in_line_and_ledger(usage: Any) -> None:
    verdict = of(MESSAGE | {"usage": usage})
    assert isinstance(verdict, Succeeded)
    assert verdict.usage == Usage()
    got = json.loads(verdict.message)["usage"]
    assert (got["input_tokens"], got["output_tokens"]) == (0, 0)
    assert got["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
    assert (got["service_tier"], got["inference_geo"]) == ("batch", "not_available")


@pytest.mark.parametrize("given_id", ["chatcmpl-ab12", "", None, 7])
def test_an_id_of_another_api_becomes_one_of_ours(given_id: Any) -> None:
    got = succeeded(MESSAGE | {"id": given_id})["id"]
    assert got.startswith("msg_01")
    assert len(got) == 28


def test_members_that_are_missing_are_filled_in() -> None:
    got = succeeded({"content": [], "stop_reason": "max_tokens"})
    assert list(got) == list(MESSAGE)
    assert (got["model"], got["type"], got["role"]) == ("asked", "message", "assistant")
    assert got["stop_sequence"] is None
    assert got["stop_details"] is None


@pytest.mark.parametrize(
    ("reason", "sequence", "expected"),
    [
        ("end_turn", "END", "stop_sequence"),
        ("end_turn", None, "end_turn"),
        ("stop", None, "end_turn"),
        ("stop", "END", "stop_sequence"),
        ("length", None, "max_tokens"),
        ("tool_calls", None, "tool_use"),
        ("pause_turn", None, "pause_turn"),
        ("refusal", None, "refusal"),
    ],
)
def test_stop_reasons_are_in_the_contracts_words(reason: str, sequence: str | None, expected: str) -> None:
    got = succeeded(MESSAGE | {"stop_reason": reason, "stop_sequence": sequence})
    assert (got["stop_reason"], got["stop_sequence"]) == (expected, sequence)


def test_raw_line_breaks_and_separators_leave_no_trace_but_their_values() -> None:
    text = "a\u2028b\u2029c\u0085d\r\ne"
    pretty = json.dumps(MESSAGE | {"content": [{"type": "text", "text": text}]}, indent=1, ensure_ascii=False) + "\r\n"
    verdict = of(pretty.encode())
    assert isinstance(verdict, Succeeded)
    assert len(verdict.message.decode().splitlines()) == 1
    assert json.loads(verdict.message)["content"][0]["text"] == text


def test_half_a_surrogate_pair_is_replaced_and_whole_ones_stay() -> None:
    body = encode(MESSAGE).replace(b'"6"', rb'"\\ud83d \ud83d\ude00 \ud83d. \ude00"')
    assert succeeded(body)["content"][0]["text"] == "\\ud83d \U0001f600 \ufffd. \ufffd"
    assert succeeded(body.replace(b". ", b"." * 5000))["content"][0]["text"].endswith("..\ufffd")


# ------------------------------------------------------------------------------------------------ poison


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b"null",
        b"[]",
        b'"text"',
        encode(MESSAGE)[:-9],
        encode(MESSAGE) + b"}",
        encode(MESSAGE).replace(b'"6"', b'"\xff"'),
        encode(MESSAGE).replace(b'"6"', b'"\n"'),
        encode(MESSAGE).replace(b'"6"', b'"\x01"'),
        encode(MESSAGE).replace(b'"6"', b'"\\q"'),
        encode(MESSAGE).replace(b'"6"', b"NaN"),
        encode(MESSAGE).replace(b'"6"', b"1" * 5000),
        encode(MESSAGE).replace(b'"6"', b"[" * 300 + b"]" * 300),
        encode(MESSAGE).replace(b'"6"', b"[" * 100_000 + b"]" * 100_000),
        encode(MESSAGE | {"content": None}),
        encode(MESSAGE | {"content": "6"}),
        encode(MESSAGE | {"content": ["6"]}),
        encode(MESSAGE | {"content": [{"text": "6"}]}),
        encode(MESSAGE | {"type": "completion"}),
        encode({"type": "error", "error": {"type": "api_error", "message": "x"}}),
    ],
)
def test_what_is_no_message_is_faulty(body: bytes) -> None:
    assert isinstance(of(body), Faulty)


def test_an_error_inside_a_200_gives_its_type_and_text() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Over\nloaded"}}
    assert of(body) == Faulty(ErrorType.OVERLOADED, "Over loaded")


@given(st.binary() | st.text().map(str.encode), st.integers(200, 599))
def test_no_reply_whatever_raises_or_breaks_a_line(body: bytes, status: int) -> None:
    match of(body, status):
        case Succeeded(message, _):
            json.loads(message)
        case Failed(error_type, message) | Faulty(error_type, message):
            assert error_type in RESULT_ERROR_TYPES
            assert 0 < len(message) <= MESSAGE_CHARS_MAX
            assert "\n" not in message


@given(st.dictionaries(st.sampled_from([*MESSAGE, "error", "x\u2028"]), json_values), json_values)
def test_a_success_is_always_one_line_with_what_a_client_needs(changes: dict[str, Any], usage: Any) -> None:
    verdict = of(MESSAGE | {"usage": USAGE | {"extra": usage}} | changes)
    if isinstance(verdict, Succeeded):
        text = verdict.message.decode()
        assert len(text.splitlines()) == 1
        got = json.loads(text)
        assert list(got)[:9] == list(MESSAGE)
        assert got["usage"]["input_tokens"] == verdict.usage.input_tokens


# ------------------------------------------------------------------------------------------------ statuses


def envelope(error_type: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": error_type, "message": message}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, envelope("invalid_request_error", "bad"), Failed(ErrorType.INVALID_REQUEST, "bad")),
        (
            400,
            {"object": "error", "message": "bad", "type": "BadRequestError"},
            Failed(ErrorType.INVALID_REQUEST, "bad"),
        ),
        (400, {"error": {"message": "bad", "type": "x", "code": 400}}, Failed(ErrorType.INVALID_REQUEST, "bad")),
        (400, {"error": "bad"}, Failed(ErrorType.INVALID_REQUEST, "bad")),
        (400, b"bad\nreally", Failed(ErrorType.INVALID_REQUEST, "bad really")),
        (422, {"detail": [{"msg": "bad"}]}, Failed(ErrorType.INVALID_REQUEST, '[{"msg":"bad"}]')),
        (413, b"<html>", Failed(ErrorType.INVALID_REQUEST, "the upstream answered with HTTP status 413")),
        (413, envelope("request_too_large", "big"), Failed(ErrorType.INVALID_REQUEST, "big")),
        (
            400,
            envelope("invalid_request_error", "Your credit balance is too low to"),
            Refused("Your credit balance is too low to"),
        ),
        (401, envelope("authentication_error", "invalid x-api-key"), Refused("invalid x-api-key")),
        (402, envelope("billing_error", "pay"), Refused("pay")),
        (403, b"", Refused("the upstream answered with HTTP status 403")),
        (404, envelope("not_found_error", "model: claude-x"), UnknownModel()),
        (404, envelope("NotFoundError", "The model `x` does not exist."), UnknownModel()),
        (404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError"}, UnknownModel()),
        (404, {"error": "model 'x' not found"}, UnknownModel()),
        (404, envelope("not_found_error", "model 'x' not found"), UnknownModel()),
        (
            404,
            envelope("not_found_error", "File not found: file_1"),
            Failed(ErrorType.NOT_FOUND, "File not found: file_1"),
        ),
        (404, envelope("not_found_error", "Not found"), NoEndpoint("Not found")),
        (404, {"detail": "Not Found"}, NoEndpoint("Not Found")),
        (
            404,
            {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
            NoEndpoint("File Not Found"),
        ),
        (404, b"404 page not found", NoEndpoint("404 page not found")),
        (404, b"<html>x</html>", NoEndpoint("the upstream answered with HTTP status 404")),
        (405, {"detail": "Method Not Allowed"}, NoEndpoint("Method Not Allowed")),
        (408, b"", Faulty(ErrorType.TIMEOUT, "the upstream answered with HTTP status 408")),
        (409, b"", Faulty(ErrorType.API, "the upstream answered with HTTP status 409")),
        (500, envelope("api_error", "Internal server error"), Faulty(ErrorType.API, "Internal server error")),
        (500, envelope("EngineError", "dead"), Faulty(ErrorType.API, "dead")),
        (
            500,
            envelope("server_error", "image input is not supported"),
            Failed(ErrorType.INVALID_REQUEST, "image input is not supported"),
        ),
        (504, b"", Faulty(ErrorType.TIMEOUT, "the upstream answered with HTTP status 504")),
        (429, b"", Busy(None)),
        (503, b"", Busy(None)),
        (529, envelope("overloaded_error", "Overloaded"), Busy(None)),
    ],
)
def test_each_status_and_envelope_has_its_verdict(status: int, body: bytes | dict[str, Any], expected: Verdict) -> None:
    assert of(body, status) == expected


def test_a_redirect_is_no_endpoint() -> None:
    assert isinstance(of(b"", 308, location="http://elsewhere"), NoEndpoint)


def test_texts_of_upstreams_are_bounded() -> None:
    verdict = of(envelope("invalid_request_error", "long " * 10_000), 400)
    assert isinstance(verdict, Failed)
    assert len(verdict.message) <= MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "999999"}, RETRY_AFTER_MAX_S),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:00 GMT", "date": "Mon, 23 Nov 2026 10:00:30 GMT"}, 0.0),
        ({"retry-after": "Mon, 99 Nov 2026 10:00:00 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 2020 10:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], expected: float | None) -> None:
    wait_s = retry_after_s(headers)
    assert wait_s == expected
    assert wait_s is None or math.isfinite(wait_s)
