"""The checks of a request's `params` that the contract defers to run time (`message-batches-api.md`, section 4.2).

Owns the texts of those refusals. It judges one request and touches no other (one-failure-is-one), never changes the
bytes, and leaves to the upstream whatever only a model server can know: unknown members, blocks, tools, limits of a
model. The common case is one decode that keeps every member as raw bytes.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from lowtide.domain.errors import ErrorType
from lowtide.domain.splice import NotAnObject, duplicate_member, top_level


class Checked(msgspec.Struct, frozen=True):
    """Params that may be sent: the model they name and the most tokens they ask for."""

    model: str
    max_tokens: int


class Refusal(msgspec.Struct, frozen=True):
    """Params that become an errored result, with its type and text."""

    error_type: ErrorType
    message: str


_RARE: Final = frozenset({"stream", "speed", "fallbacks", "billing_policy", "user_profile_id"})
_NULL: Final = b"null"
_LIST: Final = re.compile(rb"\[[ \t\r\n]*(\])?")
_URL_SOURCES: Final = "image and document URLs are not fetched here; send the data as base64"
_NAME_CHARS_MAX: Final = 64

_str = msgspec.json.Decoder(str).decode
_int = msgspec.json.Decoder(int).decode
_any = msgspec.json.Decoder().decode


def check_params(params: bytes, *, fetches_urls: bool, profile: str | None) -> Refusal | Checked:
    """Judge the `params` of one request.

    `fetches_urls` says whether the upstream may fetch image and document URLs; `profile` is the create's
    `anthropic-user-profile-id`.
    """
    try:
        members = top_level(params)
        twice = duplicate_member(params, members)
    except NotAnObject as error:
        return _invalid(f"params: {error}")
    if twice is not None:
        return _invalid(f"{twice[:_NAME_CHARS_MAX]}: appears more than once in params")
    if (
        problem := _required(members)
        or (None if _RARE.isdisjoint(members) else _rare(members, profile))
        or (None if fetches_urls or not _may_hold_sources(params) else _url_source(members))
    ):
        return _invalid(problem)
    return Checked(_str(members["model"]), _int(members["max_tokens"]))


def _required(members: dict[str, msgspec.Raw]) -> str | None:
    """Tell what is wrong with the three members that every request needs."""
    for name in ("model", "max_tokens", "messages"):
        if name not in members:
            return f"{name}: Field required"
    try:
        if not _str(members["model"]):
            return "model: String should have at least 1 character"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "model: Input should be a valid string"
    try:
        if _int(members["max_tokens"]) < 1:
            return "max_tokens: must be greater than or equal to 1"
    except msgspec.DecodeError:
        return "max_tokens: Input should be a valid integer"
    start = _LIST.match(members["messages"])
    if start is None:
        return "messages: Input should be a valid list"
    return "messages: at least one message is required" if start[1] else None


def _rare(members: dict[str, msgspec.Raw], profile: str | None) -> str | None:
    """Tell what is wrong with members that batches do not take, or not with every value."""
    stream = _bytes(members, "stream")
    if stream == b"true":
        return "`stream=True` is not supported in the Message Batches API"
    if stream not in {b"false", _NULL}:
        return "stream: Input should be a valid boolean"
    for name in ("speed", "fallbacks"):
        if _bytes(members, name) != _NULL:
            return f"`{name}` is not supported in the Message Batches API"
    if _bills_profile(_bytes(members, "billing_policy")):
        return "`billing_policy.bill_to=user_profile` is not supported in the Message Batches API"
    own = _bytes(members, "user_profile_id")
    if profile is not None and own != _NULL and _value(own) != profile:
        return "user_profile_id: conflicts with the `anthropic-user-profile-id` header of the batch"
    return None


def _bytes(members: dict[str, msgspec.Raw], name: str) -> bytes:
    """Return a member's value; what is absent reads as null."""
    return bytes(members[name]) if name in members else _NULL


def _bills_profile(policy: bytes) -> bool:
    value = _value(policy)
    return isinstance(value, dict) and value.get("bill_to") == "user_profile"


def _value(raw: bytes | msgspec.Raw) -> Any:
    """Return a small member decoded; what cannot be (a number of 5,000 digits) is None, and the upstream's to refuse."""
    try:
        return _any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _may_hold_sources(params: bytes) -> bool:
    """Tell, without reading, whether a block with a `source` could be there; an escaped letter may spell anything."""
    return b'"source"' in params or (b"\\" in params and b"\\u00" in params)


def _url_source(members: dict[str, msgspec.Raw]) -> str | None:
    """Name the first image or document whose source is a URL, as the contract names places."""
    for name in ("messages", "system"):
        if name in members:
            value = _value(members[name])
            holders = [{"content": value}] if name == "system" else value
            for index, holder in enumerate(holders if isinstance(holders, list) else []):
                where = f"{name}" if name == "system" else f"{name}.{index}.content"
                if isinstance(holder, dict):
                    for place in _url_places(holder.get("content"), where):
                        return f"{place}: {_URL_SOURCES}"
    return None


def _url_places(content: Any, where: str) -> Iterator[str]:
    """Yield where blocks of `content` have a URL as their source, in nested tool results and documents too."""
    for index, block in enumerate(content if isinstance(content, list) else []):
        if not isinstance(block, dict):
            continue
        place = f"{where}.{index}"
        source = block.get("source")
        if isinstance(source, dict):
            # Either sign is enough: parsers differ on which of two equal keys they keep.
            if source.get("type") == "url" or "url" in source:
                yield f"{place}.source"
            yield from _url_places(source.get("content"), f"{place}.source.content")
        yield from _url_places(block.get("content"), f"{place}.content")


def _invalid(message: str) -> Refusal:
    return Refusal(ErrorType.INVALID_REQUEST, message)
