"""Changing one top-level member of a JSON object without touching another byte of it.

Lowtide never re-encodes what a client wrote: numbers keep their digits, keys their order, white space its place. Where
a member must change (an aliased model, a priority), its value alone is cut out and replaced. Which bytes are the value
is never guessed by their looks: a decoder says how long each value is, and the walk from one to the next is as long as
the text, whatever a hostile one repeats inside its values.
"""

import re
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


_HEAD: Final = re.compile(rb'[ \t\r\n,]*("(?:[^"\\]++|\\.)*+")[ \t\r\n]*:[ \t\r\n]*')
"""What stands between two values of an object: the name is its group."""
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

    Of members with the same name the last is replaced. Raises NotAnObject, and NoSuchMember when there is no such
    member, its value is an array or an object, or its name is written with escapes.
    """
    if name not in top_level(text):
        raise NoSuchMember(name)
    start, end = _place(text, name)
    if text[start : start + 1] in {b"[", b"{"}:
        raise NoSuchMember(name)
    return text[:start] + value + text[end:]


def add_member(text: bytes, name: str, value: bytes) -> bytes:
    """Return `text` with the member `name` put first; the object must not have it. Raises NotAnObject."""
    comma = b"," if top_level(text) else b""
    start = text.index(b"{") + 1
    return b"%b%b:%b%b%b" % (text[:start], _encode(name), value, comma, text[start:])


def _place(text: bytes, name: str) -> tuple[int, int]:
    """Return where the value of the last member `name` stands, walking from value to value by their lengths."""
    found: tuple[int, int, bytes] | None = None
    written = _encode(name)
    end = text.index(b"{") + 1
    for key, raw in _decode_all(text).items():
        head = _HEAD.match(text, end)
        if head is None:
            raise NoSuchMember(name)
        end = head.end() + len(raw)
        if key.name == name:
            found = (head.end(), end, bytes(raw)) if head[1] == written else None
    if found is None or text[found[0] : found[1]] != found[2]:
        raise NoSuchMember(name)
    return found[0], found[1]
