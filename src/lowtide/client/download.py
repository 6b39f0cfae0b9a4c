"""A download of results that survives a cut: it goes on where it was, or says that it cannot.

The bytes so far are kept only while the server shows, by a strong ETag, that it has the same file still (`Range` and
`If-Range`). A server without either sends everything again. Whether all lines arrived is the caller's to check: it
knows how many there should be.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Protocol

from lowtide.client.api import Api
from lowtide.client.errors import BrokenOff, ClientError, Unreachable
from lowtide.client.exchange import Answer
from lowtide.client.pauses import pause_s


class Sink(Protocol):
    """Where the bytes go: it knows how many it has, and of which file."""

    offset: int
    etag: str | None

    def write(self, block: bytes) -> None:
        """Take the next bytes."""
        ...

    def restart(self) -> None:
        """Forget what came so far; raises ClientError if that is no longer possible."""
        ...


def download(api: Api, batch_id: str, sink: Sink) -> None:
    """Fill a sink with the whole file; raises what the server says, or BrokenOff after the last try.

    Tries count from the last byte that arrived: a bad line ends a download only when nothing moves any more.
    """
    tries = 0
    while True:
        before = sink.offset
        try:
            with api.results(batch_id, sink.offset, sink.etag) as answer:
                for block in _rest(answer, sink):
                    sink.write(block)
                return
        except (BrokenOff, Unreachable) as error:
            tries = 1 if sink.offset > before else tries + 1
            if tries > api.server.retries or (isinstance(error, Unreachable) and not sink.offset):
                raise
            api.pause(_kept(error, sink), pause_s(tries))


def _rest(answer: Answer, sink: Sink) -> Iterator[bytes]:
    """Yield the bytes that a sink has not, from an answer to it."""
    etag = answer.headers.get("etag")
    match answer.status:
        case HTTPStatus.PARTIAL_CONTENT if _start(answer) == sink.offset and etag == sink.etag:
            yield from answer.blocks()
        case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE if _size(answer) == sink.offset:
            return  # every byte had arrived before the cut
        case HTTPStatus.OK:
            if sink.offset:
                sink.restart()
            sink.etag = etag if etag is not None and etag.startswith('"') else None
            yield from answer.blocks()
        case _:
            sink.restart()
            raise BrokenOff("The server has other results than those that were begun.")


def _kept(error: ClientError, sink: Sink) -> ClientError:
    if not sink.offset:
        return error
    return BrokenOff(f"{error} {sink.offset:,} bytes are here." if sink.etag else f"{error} It cannot be resumed.")


def _start(answer: Answer) -> int | None:
    """Return where a partial answer begins: the a of `bytes a-b/c`."""
    text = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdecimal() else None


def _size(answer: Answer) -> int | None:
    """Return the size of the file that a range lies outside of: the c of `bytes */c`."""
    text = answer.headers.get("content-range", "").rpartition("/")[2]
    return int(text) if text.isdecimal() else None
