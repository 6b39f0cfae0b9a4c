"""The walk over a parsed body that proves it says each thing once.

Every JSON parser keeps the last of repeated keys in silence, so a body could show one `params` to a proxy and another
to us. The walk reads the body again as strict text: from the first byte to the last it must be the opening, then for
each item its two keys and exactly the bytes that the parser kept for them, then the closing. What else stands there is
a repeated key, and the refusal names it. Items mostly look alike, so an item is first compared with the spelling (white
space, order of keys) of the one before, and read token by token only where that differs.

Linear in the body: each byte is compared or matched once, with possessive patterns; nothing is copied beyond one item
of at most `_COMPARE_BYTES`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol

import msgspec

from lowtide.domain.errors import InvalidRequest

_COMPARE_BYTES = 1 << 18
_SPELLING_BYTES_MAX = 1 << 10
_KEY = re.compile(rb'[ \t\r\n]*+("(?:[^"\\]|\\.)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_OBJECT = re.compile(rb"[ \t\r\n]*+\{")
_LIST = re.compile(rb"\[")
_NEXT = re.compile(rb"[ \t\r\n]*+,[ \t\r\n]*+\{")
_COMMA = re.compile(rb"[ \t\r\n]*+,")
_END = re.compile(rb"[ \t\r\n]*+\}")
_CLOSING = re.compile(rb"[ \t\r\n]*+\][ \t\r\n]*+\}[ \t\r\n]*+")
_name = msgspec.json.Decoder(str)


class Entry(Protocol):
    """What the parser kept of one item: the raw text of both values."""

    custom_id: msgspec.Raw
    params: msgspec.Raw


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How an item is written around its two values, from the comma before it to its closing brace."""

    before: bytes
    between: bytes
    after: bytes
    params_first: bool

    def write(self, item: Entry) -> bytes:
        first, second = (item.params, item.custom_id) if self.params_first else (item.custom_id, item.params)
        return b"".join((self.before, first, self.between, second, self.after))


def walk(body: mmap, items: Sequence[Entry], met: int) -> None:
    """Prove that `body` is exactly these items; `met` is how many the parser made. Raises InvalidRequest."""
    if met != len(items):
        raise _repeated("requests")
    at = _opening(body)
    spelling: _Spelling | None = None
    for index, item in enumerate(items):
        if spelling is not None and len(memoryview(item.params)) <= _COMPARE_BYTES:
            expected = spelling.write(item)
            if body[at : at + len(expected)] == expected:
                at += len(expected)
                continue
        at, spelling = _read_item(body, at, index, item)
    closing = _CLOSING.match(body, at)
    if closing is None or closing.end() != len(body):
        raise _repeated("requests")


def _opening(body: mmap) -> int:
    at = _after(_OBJECT, body, 0, "requests")
    key = _KEY.match(body, at)
    return _after(_LIST, body, key.end() if key else at, "requests")


def _read_item(body: mmap, at: int, index: int, item: Entry) -> tuple[int, _Spelling | None]:
    """Read one item token by token; return where it ends, and its spelling if that is short enough to keep."""
    begin = at
    at = _after(_NEXT if index else _OBJECT, body, at, "requests")
    spans: list[tuple[int, int]] = []
    first = ""
    for turn in range(2):
        name, at = _read_key(body, at, index)
        where = f"requests.{index}.{name}"
        raw = item.params if name == "params" else item.custom_id
        if name == first or not _stands(body, at, raw):
            raise _repeated(where)
        first = first or name
        spans.append((at, at + len(memoryview(raw))))
        at = spans[-1][1]
        if turn == 0:
            at = _after(_COMMA, body, at, where)
    end = _END.match(body, at)
    if end is None:
        name, _ = _read_key(body, _after(_COMMA, body, at, f"requests.{index}"), index)
        raise _repeated(f"requests.{index}.{name}")
    return end.end(), _spelling(body, begin, spans, end.end(), params_first=first == "params") if index else None


def _read_key(body: mmap, at: int, index: int) -> tuple[str, int]:
    """Return the key that stands here, escapes undone, and where its value begins."""
    key = _KEY.match(body, at)
    if key is None:
        raise _repeated(f"requests.{index}")
    return _name.decode(key[1]), key.end()


def _spelling(
    body: mmap, begin: int, spans: Sequence[tuple[int, int]], end: int, *, params_first: bool
) -> _Spelling | None:
    (first, first_end), (second, second_end) = spans
    if max(first - begin, second - first_end, end - second_end) > _SPELLING_BYTES_MAX:
        return None
    return _Spelling(body[begin:first], body[first_end:second], body[second_end:end], params_first)


def _stands(body: mmap, at: int, raw: msgspec.Raw) -> bool:
    """Tell whether exactly `raw` stands in the body at `at`."""
    view = memoryview(raw)
    for start in range(0, len(view), _COMPARE_BYTES):
        piece = bytes(view[start : start + _COMPARE_BYTES])
        if body[at + start : at + start + len(piece)] != piece:
            return False
    return True


def _after(pattern: re.Pattern[bytes], body: mmap, at: int, where: str) -> int:
    found = pattern.match(body, at)
    if found is None:
        raise _repeated(where)
    return found.end()


def _repeated(where: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: Repeated keys are not permitted")
