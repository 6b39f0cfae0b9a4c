"""Request bodies as they are sent: plain, or gzip with a bound on what it grows to.

A decoder takes the pieces of a body and gives pieces of at most `_PIECE_BYTES`, so that a bomb is noticed while it
opens, not after. Source of the cases: `message-batches-api.md`, section 1.2.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

from lowtide.domain.errors import InvalidRequest

_PIECE_BYTES = 1 << 18
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Decoder(Protocol):
    """Undoes a content encoding, piece by piece."""

    def decode(self, piece: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None:
        """Raise InvalidRequest if the body stopped in the middle."""
        ...


def decoder_for(content_encoding: str | None) -> Decoder:
    """Return the decoder of a `content-encoding` header, or raise InvalidRequest for one we do not speak."""
    match (content_encoding or "identity").strip().lower():
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Gzip()
        case _:
            raise InvalidRequest("content-encoding: only gzip and identity are supported for request bodies")


class _Identity:
    def decode(self, piece: bytes) -> Iterator[bytes]:
        yield piece

    def finish(self) -> None:
        """Nothing is held back."""


class _Gzip:
    """Any number of gzip members, one after the other, as RFC 1952 allows."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._begun = False

    def decode(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            self._begun = True
            try:
                decoded = self._member.decompress(piece, _PIECE_BYTES)
            except zlib.error:
                raise _invalid() from None
            piece = self._member.unused_data or self._member.unconsumed_tail
            if decoded:
                yield decoded
        while not self._member.eof and self._begun:  # what the window still holds once the input is used up
            decoded = self._member.decompress(b"", _PIECE_BYTES)
            if not decoded:
                return
            yield decoded

    def finish(self) -> None:
        if not self._member.eof:
            raise _invalid()


def _invalid() -> InvalidRequest:
    return InvalidRequest("content-encoding: the request body is not valid gzip")
