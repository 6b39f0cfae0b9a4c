"""The whole body of an interactive call: counted as sent and as decoded, in memory, within one limit.

Creates never come here: intake spools them to disk.
"""

from starlette.requests import Request

from lowtide.domain.errors import TooLarge
from lowtide.intake.decoding import decoder_for


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the decoded body; raises TooLarge, and InvalidRequest for an encoding that we cannot read."""
    decoder = decoder_for(request.headers.get("content-encoding"))
    body = bytearray()
    sent_bytes = 0
    async for piece in request.stream():
        sent_bytes += len(piece)
        if sent_bytes > bytes_max:
            raise TooLarge
        for decoded in decoder.decode(piece):
            body += decoded
            if len(body) > bytes_max:
                raise TooLarge
    decoder.finish()
    return bytes(body)
