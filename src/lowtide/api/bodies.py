"""The whole body of an interactive call: counted as sent and as decoded, in memory, within one limit.

Creates never come here: intake spools them to disk.
"""

import zlib

from starlette.requests import Request

from lowtide.domain.errors import InvalidRequest, TooLarge

_GZIP = 16 + zlib.MAX_WBITS


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the decoded body; raises TooLarge, InvalidRequest for an encoding that we cannot read."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise InvalidRequest("content-encoding: only gzip and identity are supported")
    pieces: list[bytes] = []
    length = 0
    async for piece in request.stream():
        length += len(piece)
        if length > bytes_max:
            raise TooLarge
        pieces.append(piece)
    body = b"".join(pieces)
    return _gunzip(body, bytes_max) if encoding == "gzip" else body


def _gunzip(body: bytes, bytes_max: int) -> bytes:
    """Return a gzip body decoded, all its members, never more than `bytes_max` bytes at once."""
    decoded = bytearray()
    while body:
        decoder = zlib.decompressobj(_GZIP)
        try:
            decoded += decoder.decompress(body, bytes_max - len(decoded) + 1)
        except zlib.error as error:
            raise InvalidRequest("content-encoding: the body is not valid gzip") from error
        if len(decoded) > bytes_max:
            raise TooLarge
        if not decoder.eof:
            raise InvalidRequest("content-encoding: the gzip body is cut short")
        body = decoder.unused_data
    return bytes(decoded)
