"""The texts of a refused create: what the parser found, said in the contract's words with the place of it.

Source of the texts: `message-batches-api.md`, section 4.1. Nothing here is on the path of a legal body.
"""

import re
from mmap import mmap
from typing import Final

import msgspec

from lowtide.domain.errors import InvalidRequest

SLICE_BYTES: Final = 1 << 20
"""How much of a body is looked at in one go, so that no check holds a second copy of it."""

_NAME_CHARS_MAX = 200
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_EXPECTED = re.compile(r"Expected `(\w+)`, got `\w+`")
_BYTE = re.compile(r"(?:JSON is malformed: )?(?P<what>.*) \(byte (?P<offset>\d+)\)", re.DOTALL)
_TRAILING = "trailing characters"
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_KINDS = {"object": "dictionary", "array": "list"}


def too_deep() -> InvalidRequest:
    """Return the refusal of a body nested more deeply than can be read."""
    return InvalidRequest("The request body is not valid JSON: nested too deeply")


def too_many(found: int, most: int) -> InvalidRequest:
    """Return the refusal of a list with `found` requests."""
    return InvalidRequest(f"requests: List should have at most {most} items after validation, not {found}")


def bad_json(body: mmap, detail: str, offset: int) -> InvalidRequest:
    """Return the refusal of a body that is not JSON, naming the line, column and character of `offset`."""
    return InvalidRequest(f"The request body is not valid JSON: {detail}: {_place(body, offset)}")


def malformed(body: mmap, error: msgspec.DecodeError) -> InvalidRequest:
    """Return the refusal for what the parser says about JSON itself."""
    found = _BYTE.fullmatch(str(error))
    if found is None:
        return bad_json(body, "unexpected end of data", len(body))
    offset = int(found["offset"])
    if found["what"] == _TRAILING:
        offset -= 1  # here alone the parser names the byte after the one it means
    return bad_json(body, found["what"], offset)


def misshapen(error: msgspec.ValidationError) -> InvalidRequest:
    """Return the refusal for valid JSON of another shape than a create has."""
    text, _, path = str(error).rpartition(" - at `$")
    if not text:
        text, path = path, ""
    if found := _UNKNOWN.fullmatch(text):
        return InvalidRequest(f"{_location(path, found[1])}: Extra inputs are not permitted")
    if found := _MISSING.fullmatch(text):
        return InvalidRequest(f"{_location(path, found[1])}: Field required")
    if found := _EXPECTED.fullmatch(text):
        where = _location(path, None)
        says = f"Input should be a valid {_KINDS[found[1]]}"
        return InvalidRequest(f"{where}: {says}" if where else says)
    return InvalidRequest(text)


def _location(path: str, name: str | None) -> str:
    """Return `requests.0.custom_id` for the parser's `.requests[0]` and `custom_id`."""
    steps = [field or index for field, index in _STEP.findall(path)]
    if name is not None:
        steps.append(name if len(name) <= _NAME_CHARS_MAX else f"{name[:_NAME_CHARS_MAX]}…")
    return ".".join(steps)


def _place(body: mmap, offset: int) -> str:
    lines = chars = column = 0
    for start in range(0, offset, SLICE_BYTES):
        piece = body[start : min(start + SLICE_BYTES, offset)]
        chars += _characters(piece)
        if newlines := piece.count(b"\n"):
            lines += newlines
            column = _characters(piece[piece.rindex(b"\n") + 1 :])
        else:
            column += _characters(piece)
    return f"line {lines + 1} column {column + 1} (char {chars})"


def _characters(piece: bytes) -> int:
    """Return how many characters begin in a piece of UTF-8: bytes that continue one do not count."""
    return len(piece) if piece.isascii() else len(piece.translate(None, _CONTINUATIONS))


_CONTINUATIONS = bytes(range(0x80, 0xC0))
