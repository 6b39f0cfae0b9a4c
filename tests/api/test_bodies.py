import gzip
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from lowtide.api.bodies import read_body
from lowtide.domain.errors import InvalidRequest, TooLarge


def call(pieces: Sequence[bytes | None], encoding: str | None = None) -> Request:
    """A call whose body comes in these pieces; None is the client leaving."""
    messages: list[Message] = [
        {"type": "http.disconnect"} if piece is None else {"type": "http.request", "body": piece, "more_body": True}
        for piece in pieces
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    headers = [] if encoding is None else [(b"content-encoding", encoding.encode())]

    async def receive() -> Message:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def test_a_body_is_joined_from_its_pieces() -> None:
    assert await read_body(call([b"ab", b"", b"c"]), 3) == b"abc"


async def test_a_body_past_the_limit_is_refused_before_it_is_whole() -> None:
    with pytest.raises(TooLarge):
        await read_body(call([b"ab", b"cd", None]), 3)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " gzip "])
async def test_a_gzip_body_is_decoded(encoding: str) -> None:
    body = gzip.compress(b"a" * 100) + gzip.compress(b"b")
    assert await read_body(call([body[:7], body[7:]], encoding), 101) == b"a" * 100 + b"b"


async def test_a_gzip_bomb_is_refused_within_the_limit() -> None:
    with pytest.raises(TooLarge):
        await read_body(call([gzip.compress(bytes(50_000_000))], "gzip"), 100_000)


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"text")[:-4], gzip.compress(b"text") + b"tail"])
async def test_a_broken_gzip_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="gzip"):
        await read_body(call([body], "gzip"), 1000)


async def test_an_unknown_encoding_is_refused_before_the_body_is_read() -> None:
    with pytest.raises(InvalidRequest, match="content-encoding"):
        await read_body(call([None], "br"), 1000)


async def test_a_client_that_leaves_ends_the_reading() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(call([b"a", None]), 1000)
