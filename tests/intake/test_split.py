"""Section 4.1 of the contract: what is refused at create, with its text and its place."""

import json
from collections.abc import Callable

import pytest

Refuse = Callable[..., str | None]

JSON = "The request body is not valid JSON: "
ITEM = b'{"custom_id":"a","params":{}}'


def body(*items: bytes) -> bytes:
    return b'{"requests":[' + b",".join(items) + b"]}"


def with_id(custom_id: object) -> bytes:
    return json.dumps({"custom_id": custom_id, "params": {}}).encode()


REFUSED = {
    "malformed JSON names the place": (
        b'{"requests":[\n{"custom_id":"\xc3\xa9",]}',
        JSON + "expected '\"': line 2 column 18 (char 31)",
    ),
    "half a body": (body(ITEM)[:-3], JSON + "unexpected end of data: line 1 column 42 (char 41)"),
    "an empty body": (b"", JSON + "unexpected end of data: line 1 column 1 (char 0)"),
    "a body of white space": (b"  \n ", JSON + "unexpected end of data: line 2 column 2 (char 4)"),
    "text after the body": (body(ITEM) + b" x", JSON + "trailing characters: line 1 column 46 (char 45)"),
    "a byte order mark": (b"\xef\xbb\xbf" + body(ITEM), JSON + "unexpected byte order mark: line 1 column 1 (char 0)"),
    "bad UTF-8 in params": (
        body(b'{"custom_id":"a","params":{"x":"\xff"}}'),
        JSON + "invalid UTF-8 (invalid start byte): line 1 column 46 (char 45)",
    ),
    "UTF-8 cut off": (
        body(ITEM) + b"\xe2\x82",
        JSON + "invalid UTF-8 (unexpected end of data): line 1 column 45 (char 44)",
    ),
    "requests absent": (b"{}", "requests: Field required"),
    "requests null": (b'{"requests":null}', "requests: Input should be a valid list"),
    "requests an object": (b'{"requests":{}}', "requests: Input should be a valid list"),
    "no requests": (b'{"requests":[]}', "requests: List should have at least 1 item after validation, not 0"),
    "the body a list": (b"[]", "Input should be a valid dictionary"),
    "the body a string": (b'"x"', "Input should be a valid dictionary"),
    "an item not an object": (body(ITEM, b"5"), "requests.1: Input should be a valid dictionary"),
    "custom_id missing": (body(b'{"params":{}}'), "requests.0.custom_id: Field required"),
    "custom_id too long": (
        body(with_id("x" * 65)),
        "requests.0.custom_id: String should have at most 64 characters",
    ),
    "custom_id far too long": (
        body(with_id("x" * 100_000)),
        "requests.0.custom_id: String should have at most 64 characters",
    ),
    "custom_id with bad characters": (
        body(ITEM, with_id("a b")),
        "requests.1.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    ),
    "custom_id not ASCII": (
        body(with_id("é")),
        "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    ),
    "custom_id ending in a newline": (
        body(with_id("a\n")),
        "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    ),
    "custom_id empty": (body(with_id("")), "requests.0.custom_id: String should have at least 1 character"),
    "custom_id a number": (body(with_id(7)), "requests.0.custom_id: Input should be a valid string"),
    "custom_id null": (body(with_id(None)), "requests.0.custom_id: Input should be a valid string"),
    "custom_id repeated": (
        body(with_id("one"), with_id("dup"), with_id("two"), with_id("dup"), with_id("one")),
        "requests: custom_id's must be unique within a batch. Duplicate custom_id found: dup",
    ),
    "custom_id repeated with escapes": (
        body(with_id("dup"), b'{"custom_id":"d\\u0075p","params":{}}'),
        "requests: custom_id's must be unique within a batch. Duplicate custom_id found: dup",
    ),
    "an unknown key beside requests": (b'{"foo":1,"requests":[]}', "foo: Extra inputs are not permitted"),
    "an unknown key in an item": (
        body(ITEM, b'{"custom_id":"b","params":{},"foo":1}'),
        "requests.1.foo: Extra inputs are not permitted",
    ),
    "a strange unknown key": (
        body(b'{"custom_id":"b","params":{},"a`.[0]":1}'),
        "requests.0.a`.[0]: Extra inputs are not permitted",
    ),
    "params missing": (body(b'{"custom_id":"a"}'), "requests.0.params: Field required"),
    "params a list": (body(b'{"custom_id":"a","params":[]}'), "requests.0.params: Input should be a valid dictionary"),
    "params null": (body(b'{"custom_id":"a","params":null}'), "requests.0.params: Input should be a valid dictionary"),
    "the first wrong item is the one reported": (
        body(with_id("ok"), with_id(""), b"5", b'{"foo":1}'),
        "requests.1.custom_id: String should have at least 1 character",
    ),
    "broken JSON comes before a wrong shape": (
        body(with_id("")) + b"}",
        JSON + "trailing characters: line 1 column 47 (char 46)",
    ),
    "too deep": (
        body(b'{"custom_id":"a","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5001),
        JSON + "nested too deeply",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_with_text_and_place(refusal: Refuse, case: str) -> None:
    sent, says = REFUSED[case]
    assert refusal(sent) == says


@pytest.mark.parametrize("text", [b"\\ud800 and more text", b"\\udc00 and more text", b"\\ud800\\u0041 and more"])
def test_a_lone_surrogate_makes_the_body_malformed(refusal: Refuse, text: bytes) -> None:
    said = refusal(body(b'{"custom_id":"a","params":{"x":"' + text + b'"}}'))
    assert said is not None
    assert said.startswith(JSON)
    assert "line 1 column " in said


def test_more_requests_than_the_limit_are_refused_with_their_number(refusal: Refuse) -> None:
    items = [with_id(f"r{number}") for number in range(12)]
    assert refusal(body(*items[:10]), 10) is None
    assert refusal(body(*items), 10) == "requests: List should have at most 10 items after validation, not 12"


def test_a_list_too_long_to_count_is_refused_with_the_number_reached(refusal: Refuse) -> None:
    items = b'{"custom_id":"a","params":{}}'
    said = refusal(body(*[items] * 1_000_002))
    assert said == "requests: List should have at most 100000 items after validation, not 1000000"


REPEATED = {
    b'{"requests":[{"custom_id":"a","custom_id":"a","params":{}}]}': "requests.0.custom_id",
    b'{"requests":[{"custom_id":"b","params":{},"custom_id":"a"}]}': "requests.0.custom_id",
    b'{"requests":[{"custom_id":"a","params":{"x":1},"params":{"x":2}}]}': "requests.0.params",
    b'{"requests":[{"custom_id":"a","params":{},"params":{}}]}': "requests.0.params",
    b'{"requests":[{"params":{},"custom_id":"a","params":{}}]}': "requests.0.params",
    b'{"requests":[{"params":{},"params":{},"custom_id":"a"}]}': "requests.0.params",
    b'{"requests":[{"custom_id":"a","params":{}},{"custom_id":"b","params":{},"params":{}}]}': "requests.1.params",
    b'{"requests":[{"custom_id":"a","params":{},"par\\u0061ms":{}}]}': "requests.0.params",
    b'{"requests":[],"requests":[{"custom_id":"a","params":{}}]}': "requests",
    b'{"requests":[{"custom_id":"a","params":{}}],"requests":[]}': "requests",
    b'{"requests":[{"custom_id":"a","params":{}}],"requests":[{"custom_id":"a","params":{}}]}': "requests",
    # the kept params is shorter than the first: reading on inside the first must not look like a body
    b'{"requests":[{"params":{"a":{},"custom_id":"a"},"custom_id":"a","params":{"a":{}}}]}': "requests.0.params",
}


@pytest.mark.parametrize("sent", REPEATED)
def test_a_repeated_key_is_refused_and_named(refusal: Refuse, sent: bytes) -> None:
    assert refusal(sent) == f"{REPEATED[sent]}: Repeated keys are not permitted"


def test_a_repeated_key_far_into_a_regular_body_is_named(refusal: Refuse) -> None:
    items = [with_id(f"r{number}") for number in range(500)]
    items[321] = b'{"custom_id": "r321", "params": {}, "params": {}}'
    assert refusal(body(*items)) == "requests.321.params: Repeated keys are not permitted"
