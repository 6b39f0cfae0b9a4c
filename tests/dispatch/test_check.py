import json
from typing import Any

import pytest

from lowtide.dispatch.check import Checked, Refusal, check_params
from lowtide.domain.errors import ErrorType

GOOD: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def check(
    params: dict[str, Any] | bytes, *, fetches_urls: bool = False, profile: str | None = None
) -> Refusal | Checked:
    text = params if isinstance(params, bytes) else json.dumps(params).encode()
    return check_params(text, fetches_urls=fetches_urls, profile=profile)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def test_good_params_pass_in_any_spelling() -> None:
    expected = Checked("m", 5)
    assert check(GOOD) == expected
    assert check(json.dumps(GOOD, separators=(",", ":")).encode()) == expected
    assert check(json.dumps(GOOD, indent=3).encode()) == expected
    assert check(GOOD | {"stream": False, "speed": None, "unknown": {"a": [1]}, "\u00e9": 1}) == expected


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (GOOD | {"messages": []}, "messages: at least one message is required"),
        (b'{"model":"m","max_tokens":5,"messages":[ \n\t]}', "messages: at least one message is required"),
        (without("messages"), "messages: Field required"),
        (without("model"), "model: Field required"),
        (without("max_tokens"), "max_tokens: Field required"),
        (GOOD | {"messages": "hi"}, "messages: Input should be a valid list"),
        (GOOD | {"model": 1}, "model: Input should be a valid string"),
        (GOOD | {"model": None}, "model: Input should be a valid string"),
        (GOOD | {"model": ""}, "model: String should have at least 1 character"),
        (GOOD | {"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
        (GOOD | {"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        (GOOD | {"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
        (GOOD | {"max_tokens": 0}, "max_tokens: must be greater than or equal to 1"),
        (GOOD | {"max_tokens": -1}, "max_tokens: must be greater than or equal to 1"),
        (GOOD | {"stream": True}, "`stream=True` is not supported in the Message Batches API"),
        (GOOD | {"stream": 1}, "stream: Input should be a valid boolean"),
        (GOOD | {"speed": "fast"}, "`speed` is not supported in the Message Batches API"),
        (GOOD | {"fallbacks": []}, "`fallbacks` is not supported in the Message Batches API"),
        (
            GOOD | {"billing_policy": {"bill_to": "user_profile"}},
            "`billing_policy.bill_to=user_profile` is not supported in the Message Batches API",
        ),
        (b"[]", "params: Input should be a valid dictionary"),
    ],
)
def test_bad_params_are_refused_with_the_contracts_text(params: dict[str, Any] | bytes, message: str) -> None:
    assert check(params) == Refusal(ErrorType.INVALID_REQUEST, message)


@pytest.mark.parametrize(
    "params",
    [
        b"",
        b"{",
        b'{"model":"m","max_tokens":5,"messages":[{]}',
        b'{"model":"m","max_tokens":5,"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","max_tokens":' + b"1" * 5000 + b',"messages":[1]}',
        b'{"model":"\xff","max_tokens":5,"messages":[1]}',
        b'{"\xff":1,"model":"m","max_tokens":5,"messages":[1]}',
    ],
)
def test_damaged_params_are_refused_and_raise_nothing(params: bytes) -> None:
    assert isinstance(check(params), Refusal)


def test_a_huge_number_elsewhere_is_the_upstreams_matter() -> None:
    text = json.dumps(GOOD).encode()
    number = b"1" * 5000
    assert check(text[:-1] + b',"top_k":%b}' % number) == Checked("m", 5)
    assert check(text[:-1] + b',"billing_policy":{"x":%b}}' % number) == Checked("m", 5)
    assert check(text[:-1] + b',"user_profile_id":%b}' % number, profile="p") == Refusal(
        ErrorType.INVALID_REQUEST,
        "user_profile_id: conflicts with the `anthropic-user-profile-id` header of the batch",
    )


@pytest.mark.parametrize(
    "twice",
    [
        b'{"model":"m","max_tokens":5,"messages":[1],"max_tokens":5}',
        b'{"model":"m","max_tokens":5,"messages":[1],"m\\u006fdel":"n"}',
        b'{"model": "m", "max_tokens": 5, "messages": [1], "model": "m"}',
        b'{"model":"m","max_tokens":5,"messages":[1],"x":1,"x":1}',
        b'{ "model":"m","max_tokens":5,"messages":[1],"\xc3\xa9":1,"\xc3\xa9":2}',
    ],
)
def test_a_member_given_twice_is_refused(twice: bytes) -> None:
    refusal = check(twice)
    assert isinstance(refusal, Refusal)
    assert refusal.message.endswith("appears more than once in params")


def test_a_profile_conflicts_only_with_another_one() -> None:
    own = GOOD | {"user_profile_id": "p1"}
    assert isinstance(check(own, profile="p2"), Refusal)
    assert check(own, profile="p1") == check(own) == check(GOOD, profile="p1") == Checked("m", 5)


URL_SOURCE = {"type": "url", "url": "https://example.com/a.png"}
DATA_SOURCE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def holding(*blocks: Any) -> dict[str, Any]:
    return GOOD | {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("params", "place"),
    [
        (holding({"type": "image", "source": URL_SOURCE}), "messages.1.content.0.source"),
        (
            holding({"type": "text", "text": "a"}, {"type": "document", "source": URL_SOURCE}),
            "messages.1.content.1.source",
        ),
        (
            holding({"type": "tool_result", "content": [{"type": "image", "source": URL_SOURCE}]}),
            "messages.1.content.0.content.0.source",
        ),
        (
            holding({"type": "document", "source": {"type": "content", "content": [{"source": URL_SOURCE}]}}),
            "messages.1.content.0.source.content.0.source",
        ),
        (GOOD | {"system": [{"type": "image", "source": URL_SOURCE}]}, "system.0.source"),
        (
            holding({"type": "image", "source": DATA_SOURCE | {"url": "file:///etc/passwd"}}),
            "messages.1.content.0.source",
        ),
    ],
)
def test_urls_of_images_and_documents_are_refused_unless_the_upstream_may_fetch(
    params: dict[str, Any], place: str
) -> None:
    text = json.dumps(params)
    escaped = text.replace('"url"', '"\\u0075rl"').replace('"source"', '"s\\u006furce"')
    for spelling in (text, escaped):
        refusal = check(spelling.encode())
        assert isinstance(refusal, Refusal)
        assert refusal.message.startswith(f"{place}: ")
        assert check(spelling.encode(), fetches_urls=True) == Checked("m", 5)


@pytest.mark.parametrize(
    "params",
    [
        holding({"type": "image", "source": DATA_SOURCE}),
        holding({"type": "text", "text": 'the "source" is "url"'}),
        holding({"type": "tool_use", "input": {"source": URL_SOURCE}}),
        GOOD | {"messages": [1, None, "source", {"content": 'a "source"'}, {"content": [1, {"source": "url"}]}]},
    ],
)
def test_data_and_words_about_sources_pass(params: dict[str, Any]) -> None:
    assert check(params) == Checked("m", 5)
