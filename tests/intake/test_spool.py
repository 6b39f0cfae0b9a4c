"""The spool: bodies arrive on disk as they were meant, within bounds, and leave nothing behind."""

import asyncio
import gzip
import hashlib
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from lowtide.domain.errors import InvalidRequest, Overloaded, TooLarge, TooSlow
from lowtide.intake.decoding import decoder_for
from lowtide.intake.spool import Pace, Room, Spool

BODY = random.Random(3).randbytes(3_000_000) + b"x" * 2_000_000
MAX = 8 << 20
PACE = Pace(idle_s=30, bytes_per_s=0)


async def stream(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def cut(data: bytes, length: int) -> list[bytes]:
    return [data[start : start + length] for start in range(0, len(data), length)]


async def receive(directory: Path, sent: bytes, encoding: str | None, piece_bytes: int = 65_536) -> bytes:
    room = Room(MAX)
    async with Spool(directory / "body", decoder_for(encoding), MAX, room, PACE) as spool:
        spooled = await spool.receive(stream(cut(sent, piece_bytes)), lambda _: None)
        data = spool.path.read_bytes()
        assert room.taken_bytes == len(data) == spooled.length
        assert spooled.digest == hashlib.sha256(data).hexdigest()
    assert room.taken_bytes == 0
    assert not list(directory.iterdir())
    return data


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity"])
async def test_a_plain_body_arrives_as_it_is(tmp_path: Path, encoding: str | None) -> None:
    assert await receive(tmp_path, BODY, encoding) == BODY


@pytest.mark.parametrize("piece_bytes", [997, 65_536, 10_000_000])
async def test_a_gzip_body_arrives_decoded_however_it_is_cut(tmp_path: Path, piece_bytes: int) -> None:
    assert await receive(tmp_path, gzip.compress(BODY), "gzip", piece_bytes) == BODY


async def test_gzip_members_one_after_the_other_are_one_body(tmp_path: Path) -> None:
    sent = b"".join(gzip.compress(piece) for piece in cut(BODY, 1_000_000))
    assert await receive(tmp_path, sent, "GZIP") == BODY


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"plain",
        gzip.compress(BODY)[:-1],
        gzip.compress(BODY)[:1000],
        gzip.compress(BODY) + b"more",
        gzip.compress(BODY)[:-8] + bytes(8),
    ],
    ids=["nothing", "plain text", "cut at the end", "cut early", "trailed by garbage", "with a wrong checksum"],
)
async def test_what_is_not_gzip_is_refused(tmp_path: Path, sent: bytes) -> None:
    with pytest.raises(InvalidRequest, match="content-encoding: the request body is not valid gzip"):
        await receive(tmp_path, sent, "gzip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="content-encoding: only gzip and identity are supported"):
        decoder_for(encoding)


@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_a_body_past_the_limit_is_refused_as_sent_or_decoded(tmp_path: Path, encoding: str | None) -> None:
    body = b"x" * (MAX + 1)
    with pytest.raises(TooLarge):
        await receive(tmp_path, gzip.compress(body) if encoding else body, encoding)
    assert not list(tmp_path.iterdir())


async def test_all_bodies_together_are_bounded(tmp_path: Path) -> None:
    room = Room(len(BODY) + 1000)
    async with Spool(tmp_path / "one", decoder_for(None), MAX, room, PACE) as one:
        await one.receive(stream([BODY]), lambda _: None)
        async with Spool(tmp_path / "two", decoder_for(None), MAX, room, PACE) as two:
            with pytest.raises(Overloaded):
                await two.receive(stream([BODY]), lambda _: None)
    async with Spool(tmp_path / "three", decoder_for(None), MAX, room, PACE) as three:
        await three.receive(stream([BODY]), lambda _: None)
    assert room.taken_bytes == 0


async def test_a_body_that_stands_still_is_refused(tmp_path: Path) -> None:
    async def still() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with Spool(tmp_path / "body", decoder_for(None), MAX, Room(MAX), Pace(0.05, 0)) as spool:
        with pytest.raises(TooSlow, match=r"stood still for 0\.05 seconds") as refused:
            await spool.receive(still(), lambda _: None)
    assert refused.value.headers["x-should-retry"] == "false"
    assert not list(tmp_path.iterdir())


async def test_a_cancelled_call_leaves_no_file(tmp_path: Path) -> None:
    begun = asyncio.Event()
    room = Room(MAX)

    async def endless() -> AsyncIterator[bytes]:
        yield BODY
        yield b"more"
        begun.set()
        await asyncio.Event().wait()

    async def spooling() -> None:
        async with Spool(tmp_path / "body", decoder_for(None), MAX, room, PACE) as spool:
            await spool.receive(endless(), lambda _: None)

    task = asyncio.create_task(spooling())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while list(tmp_path.iterdir()) or room.taken_bytes:  # the thread ends its batch first
        await asyncio.sleep(0.001)
