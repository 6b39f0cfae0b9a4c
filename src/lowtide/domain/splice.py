"""Changing one top-level member of a JSON object without touching another byte of it.

Lowtide never re-encodes what a client wrote: numbers keep their digits, keys their order, white space its place. Where
a member must change (an aliased model, a priority), its value alone is cut out and replaced. Which bytes are the value
is never guessed: a candidate found by its looks is replaced by a sentinel, and counts only if a decoder then reads the
sentinel as the top-level member and every other member as before.
"""

import re
import secrets
from functools import lru_cache
from typing import Final

import msgspec

from lowtide.domain.errors import LowtideError


class NotAnObject(LowtideError):
    """The text is no JSON object: malformed, nested too deep, or another kind of value."""


class NoSuchMember(LowtideError):
    """The object has no such member whose value could be replaced."""


class _Key:
    """A key that equals no other, so that a dictionary keeps all members of the same name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_VALUE: Final = rb'("(?:[^"\\]|\\.)*"|[-+.0-9a-zA-Z]+)'
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_all = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=lambda _, name: _Key(name)).decode
_encode = msgspec.json.Encoder().encode


def top_level(text: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of the object `text`, their values untouched; raises NotAnObject.

    Of members with the same name the last is given. The values are well-formed JSON, but for what a decoder that
    skips them leaves open: whether strings are UTF-8, and how large a number is.
    """
    try:
        return _decode(text)
    except RecursionError:
        message = "nested too deep"
    except msgspec.ValidationError:
        message = "Input should be a valid dictionary"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"not valid JSON: {error}"
    raise NotAnObject(message)


def duplicate_member(text: bytes, members: dict[str, msgspec.Raw]) -> str | None:
    """Return the name of a top-level member that `text` has twice, or None; `members` is its `top_level`.

    If the members and the fewest brackets, quotes, colons and commas they need already make up the whole length, there
    is no room for a second one. Every other text (white space, escaped or non-ASCII names) is read again with all
    its members.
    """
    count = len(members)
    if count and sum(map(len, members)) + sum(map(len, members.values())) + 4 * count + 1 == len(text):
        return None
    seen: set[str] = set()
    for key in _decode_all(text):
        if key.name in seen:
            return key.name
        seen.add(key.name)
    return None


def replace_member(text: bytes, name: str, value: bytes) -> bytes:
    """Return `text` with the value of its top-level member `name`, a string or a scalar, replaced by the JSON `value`.

    Raises NotAnObject, and NoSuchMember when there is no such member, its value is an array or an object, or its name
    is written with escapes.
    """
    expected = {key: bytes(raw) for key, raw in top_level(text).items()}
    if name not in expected:
        raise NoSuchMember(name)
    sentinel = _encode(secrets.token_hex(16))
    expected[name] = sentinel
    for found in _candidate(name).finditer(text):
        start, end = found.span(1)
        if _reads_as(text[:start] + sentinel + text[end:], expected):
            return text[:start] + value + text[end:]
    raise NoSuchMember(name)


def add_member(text: bytes, name: str, value: bytes) -> bytes:
    """Return `text` with the member `name` put first; the object must not have it. Raises NotAnObject."""
    comma = b"," if top_level(text) else b""
    start = text.index(b"{") + 1
    return b"%b%b:%b%b%b" % (text[:start], _encode(name), value, comma, text[start:])


@lru_cache(maxsize=64)
def _candidate(name: str) -> re.Pattern[bytes]:
    return re.compile(re.escape(_encode(name)) + rb"\s*:\s*" + _VALUE)


def _reads_as(text: bytes, expected: dict[str, bytes]) -> bool:
    try:
        members = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return members.keys() == expected.keys() and all(bytes(members[key]) == expected[key] for key in expected)
