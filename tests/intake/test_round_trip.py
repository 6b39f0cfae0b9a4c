"""n-in-n-out at intake: every request of a legal body stands once in its object, `params` byte for byte."""

import base64
import json
import random
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.domain.chunks import Request
from lowtide.intake.job import Report
from lowtide.ports.metadata import NewChunk

Performed = Callable[[bytes], Report]
Stored = Callable[[Report], list[tuple[NewChunk, list[int], list[Request]]]]
Drawn = tuple[bytes, list[tuple[str, bytes]]]

SPACE = st.sampled_from(["", "", "", " ", "\n", "\t ", " \r\n  "])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PARAMS = st.dictionaries(st.sampled_from(["model", "tools", "system", "messages", "x"]), VALUES, max_size=5)


def escaped(text: str, where: int) -> str:
    """Write one character of `text` as an escape."""
    where %= len(text)
    return f"{text[:where]}\\u{ord(text[where]):04x}{text[where + 1 :]}"


@st.composite
def bodies(draw: st.DrawFn) -> Drawn:
    """Draw a legal body, in any spelling, and what it says."""
    ids = draw(st.lists(st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True), min_size=1, max_size=40, unique=True))
    regular = draw(st.booleans())
    items, said = [], []
    for custom_id in ids:
        params = json.dumps(
            draw(PARAMS), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1]))
        )
        said.append((custom_id, params))
        space = "" if regular else draw(SPACE)
        written = custom_id if regular or draw(st.booleans()) else escaped(custom_id, draw(st.integers(0, 63)))
        key = "params" if regular or draw(st.booleans()) else escaped("params", draw(st.integers(0, 5)))
        pair = [f'{space}"custom_id"{space}:{space}"{written}"{space}', f'"{key}":{space}{params}{space}']
        if not regular and draw(st.booleans()):
            pair.reverse()
        items.append("{" + ",".join(pair) + "}" + space)
    space = draw(SPACE)
    text = f'{space}{{{space}"requests"{space}:{space}[{space}{f",{space}".join(items)}]{space}}}{space}'
    return text.encode(), [(custom_id, params.encode()) for custom_id, params in said]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawn=bodies())
def test_params_come_out_byte_for_byte_and_every_request_once(
    perform_body: Performed, stored: Stored, drawn: Drawn
) -> None:
    body, said = drawn
    found = {}
    for _, positions, requests in stored(perform_body(body)):
        for position, request in zip(positions, requests, strict=True):
            assert position not in found
            found[position] = (request.custom_id, request.params)
    assert [found[position] for position in range(len(said))] == said


def test_images_tools_and_cache_control_pass_untouched(perform_body: Performed, stored: Stored) -> None:
    image = base64.b64encode(random.Random(1).randbytes(700_000)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": image}
    params = [
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]},
        {
            "model": "m",
            "tools": [{"name": "t", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        },
        {"model": "m", "system": [{"type": "text", "text": "é \u2028", "cache_control": {"type": "ephemeral"}}]},
    ]
    texts = [json.dumps(given, ensure_ascii=False).encode() for given in params]
    items = b",".join(b'{"custom_id":"r%d","params":%b}' % pair for pair in enumerate(texts))
    found = {}
    for _, positions, requests in stored(perform_body(b'{"requests":[' + items + b"]}")):
        found |= dict(zip(positions, (request.params for request in requests), strict=True))
    assert [found[0], found[1], found[2]] == texts
