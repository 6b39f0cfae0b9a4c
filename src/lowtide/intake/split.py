"""The splitter: a whole body, mapped from disk, becomes its requests, each `params` untouched.

It owns everything that the contract refuses at create. It must never hold a second copy of the body, nor let a hostile
one cost more than a legal one: items are counted and checked *while* the parser makes them, so the first bad one stops
it. `Raw` checks neither UTF-8, nor that params is an object, nor repeated keys: those checks are here and in `walk`.
Tested by `tests/intake/test_split.py` (each row of section 4.1) and `test_hostile.py`.
"""

import codecs
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap
from typing import Final

import msgspec

from lowtide.domain.errors import InvalidRequest
from lowtide.domain.limits import CUSTOM_ID_CHARS_MAX
from lowtide.intake import wording
from lowtide.intake.walk import walk

COUNT_MAX: Final = 1_000_000
"""A list that is too long is counted up to here, to tell its true length where that is cheap."""

_PLAIN_IDS = re.compile(rb'(?:"[a-zA-Z0-9_-]{1,64}"\n)*+')
_PLAIN_ID = re.compile(rb'"[a-zA-Z0-9_-]{1,64}"')
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ESCAPED_CHAR_BYTES = 12
"""The longest way to write one character: an escaped surrogate pair."""
_AT_ONCE = 1000


class _TooMany(Exception):
    """The list goes on past the limit."""


class _Tally(threading.local):
    """How many items the parse of this thread has met, and how many it may."""

    met = 0
    most = 0


_tally = _Tally()


class Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One `{custom_id, params}`, counted as soon as it is made."""

    custom_id: msgspec.Raw
    params: msgspec.Raw

    def __post_init__(self) -> None:
        met = _tally.met
        if met >= _tally.most:
            raise _TooMany
        _tally.met = met + 1


class _CheckedItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The same, judged as soon as it is made, so that the first wrong item of a body is the one that is named."""

    custom_id: msgspec.Raw
    params: msgspec.Raw

    def __post_init__(self) -> None:
        index = _tally.met
        if index >= _tally.most:
            raise _TooMany
        _tally.met = index + 1
        if not _PLAIN_ID.fullmatch(self.custom_id):
            _check_custom_id(self.custom_id, index)
        if not _is_object(self.params):
            raise InvalidRequest(f"requests.{index}.params: Input should be a valid dictionary")


class _Counted(msgspec.Struct, gc=False):
    """An item of a list that is too long: only its number matters."""

    def __post_init__(self) -> None:
        if _tally.met >= _tally.most:
            raise _TooMany
        _tally.met += 1


class _Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    requests: list[Item]


class _CheckedBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    requests: list[_CheckedItem]


class _CountedBody(msgspec.Struct, gc=False):
    requests: list[_Counted]


_body = msgspec.json.Decoder(_Body)
_checked_body = msgspec.json.Decoder(_CheckedBody)
_counted_body = msgspec.json.Decoder(_CountedBody)
_any_json = msgspec.json.Decoder(msgspec.Raw)
_string = msgspec.json.Decoder(str)
_strings = msgspec.json.Decoder(list[str])


@dataclass(frozen=True, slots=True)
class Split:
    """The requests of a body, side by side, in the client's order. `params` are views of the body."""

    custom_ids: list[str]
    params: list[msgspec.Raw]


def split(body: mmap, requests_max: int) -> Split:
    """Return the requests of `body`, or raise InvalidRequest with the first thing wrong with it."""
    _check_utf8(body)
    try:
        items = _parse(body, requests_max)
        walk(body, items, _tally.met)
    except RecursionError:
        raise wording.too_deep() from None
    custom_ids = _texts(items)
    _check_unique(custom_ids)
    return Split(custom_ids, [item.params for item in items])


def _parse(body: mmap, requests_max: int) -> list[Item]:
    """Return the items; what is wrong with them is only looked for once it is known that something is."""
    _tally.met, _tally.most = 0, requests_max
    try:
        items = _body.decode(body).requests
    except (msgspec.DecodeError, _TooMany):
        _explain(body, requests_max)
        raise
    if not _tally.met:
        raise InvalidRequest("requests: List should have at least 1 item after validation, not 0")
    if not (_plain(items) and all(_is_object(item.params) for item in items)):
        met = _tally.met
        _explain(body, requests_max)
        _tally.met = met
    return items


def _plain(items: list[Item]) -> bool:
    """Tell whether every custom_id is plainly right; control characters never stand in JSON, so LF can part them."""
    for start in range(0, len(items), _AT_ONCE):
        joined = b"\n".join([*(item.custom_id for item in items[start : start + _AT_ONCE]), b""])
        if not _PLAIN_IDS.fullmatch(joined):
            return False
    return True


def _is_object(raw: msgspec.Raw) -> bool:
    return memoryview(raw)[0] == 0x7B


def _explain(body: mmap, requests_max: int) -> None:
    """Raise the first thing wrong with the body; return if its ids are right, but written with escapes."""
    try:
        _any_json.decode(body)  # that it is no JSON is said before anything about its shape
    except msgspec.DecodeError as error:
        raise wording.malformed(body, error) from None
    _tally.met, _tally.most = 0, requests_max
    try:
        _checked_body.decode(body)
    except msgspec.ValidationError as error:
        raise wording.misshapen(error) from None
    except msgspec.DecodeError as error:
        raise wording.malformed(body, error) from None
    except _TooMany:
        raise wording.too_many(_count(body), requests_max) from None


def _count(body: mmap) -> int:
    """Return how many requests the list has, as far as COUNT_MAX."""
    _tally.met, _tally.most = 0, COUNT_MAX
    with suppress(_TooMany, msgspec.ValidationError):
        _counted_body.decode(body)
    return _tally.met


def _check_utf8(body: mmap) -> None:
    if body[:3] == codecs.BOM_UTF8:
        raise wording.bad_json(body, "unexpected byte order mark", 0)
    decoder = codecs.getincrementaldecoder("utf-8")()
    length = len(body)
    for start in range(0, length, wording.SLICE_BYTES):
        piece = body[start : start + wording.SLICE_BYTES]
        pending = len(decoder.getstate()[0])
        if not pending and piece.isascii():
            continue
        try:
            decoder.decode(piece, final=start + len(piece) == length)
        except UnicodeDecodeError as error:
            offset = start - pending + error.start
            raise wording.bad_json(body, f"invalid UTF-8 ({error.reason})", offset) from None


def _check_custom_id(raw: msgspec.Raw, index: int) -> None:
    """Judge an id that is not plainly right: it may be wrong, or right and written with escapes."""
    view = memoryview(raw)
    if view[0] != 0x22:
        raise _bad_id(index, "Input should be a valid string")
    if len(view) > CUSTOM_ID_CHARS_MAX * _ESCAPED_CHAR_BYTES + 2:
        raise _bad_id(index, f"String should have at most {CUSTOM_ID_CHARS_MAX} characters")
    text = _string.decode(raw)
    if not text:
        raise _bad_id(index, "String should have at least 1 character")
    if len(text) > CUSTOM_ID_CHARS_MAX:
        raise _bad_id(index, f"String should have at most {CUSTOM_ID_CHARS_MAX} characters")
    if not _ID.fullmatch(text):
        raise _bad_id(index, "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'")


def _bad_id(index: int, says: str) -> InvalidRequest:
    return InvalidRequest(f"requests.{index}.custom_id: {says}")


def _texts(items: list[Item]) -> list[str]:
    """Return the custom_ids, escapes undone."""
    texts: list[str] = []
    for start in range(0, len(items), _AT_ONCE):
        raws = [item.custom_id for item in items[start : start + _AT_ONCE]]
        texts += _strings.decode(b"[%b]" % b",".join(raws))
    return texts


def _check_unique(custom_ids: list[str]) -> None:
    seen = set(custom_ids)
    if len(seen) == len(custom_ids):
        return
    for custom_id in custom_ids:
        if custom_id not in seen:
            raise InvalidRequest(
                f"requests: custom_id's must be unique within a batch. Duplicate custom_id found: {custom_id}"
            )
        seen.remove(custom_id)
