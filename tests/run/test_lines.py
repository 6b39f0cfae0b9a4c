"""What a line of the input may be, what is said of one that is not a request, and how an input is cut."""

import json
from pathlib import Path

import pytest

from lowtide.app.run.job import Fill
from lowtide.app.run.reading import BadLine, Line, LineReader, lines_of
from lowtide.app.run.source import Source, source_of
from lowtide.app.run.survey import PROBLEMS_MAX, Survey, survey
from lowtide.domain.errors import SettingsError
from lowtide.domain.limits import Limits

WHOLE = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}'
READER = LineReader(Fill(), length_max=4096, fetches_urls=False)


def read(text: bytes, fill: Fill | None = None) -> bytes:
    return LineReader(fill or Fill(), length_max=4096, fetches_urls=False).read(Line(7, 0, text)).item()


def surveyed(path: Path, text: bytes, limits: Limits | None = None) -> Survey:
    path.write_bytes(text)
    return survey(Source("", None, path), READER, limits or Limits(), path.with_name("scratch"), lambda _: None)


def test_the_bytes_of_params_stay_the_clients_own() -> None:
    params = b'{ "model" : "m", "max_tokens":1, "seed": 1.50e3, "messages":[{"role":"user","content":"\\u00e9"}] }'
    assert read(b'{"params":%b,"custom_id":"a"}\r\n' % params) == b'{"custom_id":"a","params":%b}' % params
    assert read(b"  %b  " % params) == b'{"custom_id":"line-000007","params":%b}' % params


def test_flags_fill_in_and_never_overwrite() -> None:
    fill = Fill(model="big", system='Say "hi"', max_tokens=9)
    item = json.loads(read(b'{"max_tokens":2,"messages":[{"role":"user","content":"x"}]}', fill))
    assert item["params"] == {
        "model": "big",
        "system": 'Say "hi"',
        "max_tokens": 2,
        "messages": [{"role": "user", "content": "x"}],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[]", "not a JSON object"),
        (b'{"a":1}', "neither"),
        (b'{"requests":[]}', "neither"),
        (b'{"custom_id":"a","messages":[]}', "custom_id: stands among the params"),
        (b'{"custom_id":1,"params":%b}' % WHOLE, "custom_id: Input should be a valid string"),
        (b'{"custom_id":"a b","params":%b}' % WHOLE, "custom_id: should be 1 to 64 letters"),
        (b'{"custom_id":"","params":%b}' % WHOLE, "custom_id: should be 1 to 64 letters"),
        (b'{"params":%b,"method":"POST"}' % WHOLE, "method: stands beside custom_id and params"),
        (b'{"params":%b,"params":%b}' % (WHOLE, WHOLE), "params: appears more than once"),
        (b'{"params":[]}', "params: Input should be a valid dictionary"),
        (WHOLE.replace(b'"x"', b'"\xff"'), "not valid UTF-8"),
        (
            WHOLE.replace(b'"max_tokens":1,', b""),
            "max_tokens: Field required (give it in the line or with --max-tokens)",
        ),
        (WHOLE.replace(b"{", b'{"stream":true,', 1), "`stream=True` is not supported"),
        (WHOLE + b" " * 5000, "longer than the 4,096 bytes"),
    ],
)
def test_what_is_no_request_is_told_why(text: bytes, says: str) -> None:
    with pytest.raises(BadLine) as raised:
        read(text)
    assert str(raised.value).startswith(says)


def test_blank_lines_count_and_are_no_requests(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"\xef\xbb\xbf%b\r\n\n  \n%b" % (WHOLE, WHOLE))
    assert [(line.number, line.start) for line in lines_of(path, 4096)] == [(1, 0), (4, len(WHOLE) + 9)]


def test_a_line_that_is_too_long_is_passed_over_whole(tmp_path: Path) -> None:
    found = surveyed(tmp_path / "in", b"%b\n%b\n%b\n" % (WHOLE, b"x" * 20_000, WHOLE))
    assert found.requests == 3
    assert found.problems == ["line 2: longer than the 4,096 bytes that one batch may have"]


def test_problems_are_listed_up_to_a_bound_and_counted_beyond(tmp_path: Path) -> None:
    found = surveyed(tmp_path / "in", b"no\n" * 50)
    assert (len(found.problems), found.problem_count) == (PROBLEMS_MAX, 50)


def test_an_id_met_twice_names_both_lines_even_where_one_was_made(tmp_path: Path) -> None:
    named = b'{"custom_id":"line-000002","params":%b}' % WHOLE
    assert surveyed(tmp_path / "in", named + b"\n" + WHOLE).problems == [
        "line 2: custom_id line-000002 is already that of line 1"
    ]


def test_an_input_is_cut_where_a_limit_is_reached(tmp_path: Path) -> None:
    by_count = surveyed(tmp_path / "in", (WHOLE + b"\n") * 7, Limits(requests_max=3)).cuts
    assert [(cut.line, cut.count) for cut in by_count] == [(1, 3), (4, 3), (7, 1)]
    item = len(read(WHOLE)) + 1
    by_bytes = surveyed(tmp_path / "in", (WHOLE + b"\n") * 7, Limits(body_bytes_max=1024 + 5 * item)).cuts
    assert [(cut.line, cut.count) for cut in by_bytes] == [(1, 5), (6, 2)]
    assert [cut.end for cut in by_bytes][:-1] == [cut.start for cut in by_bytes][1:]


def test_a_create_body_becomes_lines_with_its_values_untouched(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_bytes(b'{\n "requests": [\n  {"custom_id": "a",\n "params": %b}, %b\n ]\n}' % (WHOLE, WHOLE))
    source = source_of(str(path), tmp_path, None)
    assert source.path.read_bytes() == b'{"custom_id": "a",  "params": %b}\n%b\n' % (WHOLE, WHOLE)
    assert (source.file, source.noun) == ("input.jsonl", "request")


def test_a_broken_create_body_and_a_missing_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b'{"requests": [{"custom_id": "a"')
    with pytest.raises(SettingsError, match="begins like the body of a create, but it is none"):
        source_of(str(tmp_path / "body.json"), tmp_path, None)
    with pytest.raises(SettingsError, match="cannot be read"):
        source_of(str(tmp_path / "away"), tmp_path, None)
