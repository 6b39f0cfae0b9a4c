"""How a chunk's requests stand in a batch's requests object, and the bitmap of which are resolved.

A chunk is a contiguous byte range: a head (MessagePack: custom_ids, positions in the client's array, lengths of
params, checksum of what follows), then the params one after the other, exactly as the client wrote them. The chunk's
row holds the range, the head's length and the head's checksum, so that one ranged read fetches everything and a
shorter one the custom_ids alone, and either proves itself.
"""

from collections.abc import Iterator, Sequence

import msgspec

from lowtide.domain.checksum import checksum
from lowtide.domain.errors import ObjectDamaged


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The start of a chunk. The three lists run side by side; `positions` count from 0 in the client's array."""

    custom_ids: list[str]
    positions: list[int]
    params_lengths: list[int]
    params_checksum: int


class Request(msgspec.Struct, frozen=True):
    """One request of a chunk: its index in the bitmap, its id, and the client's bytes of `params`."""

    index: int
    custom_id: str
    params: bytes


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode


def encode_head(custom_ids: list[str], positions: list[int], params_lengths: list[int], params_checksum: int) -> bytes:
    """Return a chunk's head; `params_checksum` is `checksum` of all its params, joined."""
    return _encode_head(Head(custom_ids, positions, params_lengths, params_checksum))


def decode_head(data: bytes | memoryview, head_checksum: int) -> Head:
    """Return the head that `data` is, or raise ObjectDamaged."""
    if checksum(data) != head_checksum:
        message = "the head of a chunk does not match its checksum"
        raise ObjectDamaged(message)
    return _decode_head(data)


def decode_requests(data: bytes, head_length: int, head_checksum: int, skip: int) -> list[Request]:
    """Return the requests of the chunk `data` whose bit is not set in `skip`, or raise ObjectDamaged."""
    view = memoryview(data)
    head = decode_head(view[:head_length], head_checksum)
    params = view[head_length:]
    if checksum(params) != head.params_checksum:
        message = "the params of a chunk do not match their checksum"
        raise ObjectDamaged(message)
    found = []
    start = 0
    for index, (custom_id, length) in enumerate(zip(head.custom_ids, head.params_lengths, strict=True)):
        if not skip >> index & 1:
            found.append(Request(index, custom_id, bytes(params[start : start + length])))
        start += length
    return found


def full_bitmap(size: int) -> int:
    """Return the bitmap in which all `size` requests are resolved."""
    return (1 << size) - 1


def bits(bitmap: int) -> Iterator[int]:
    """Yield the indexes of the set bits, lowest first."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


def bitmap_of(indexes: Sequence[int]) -> int:
    """Return the bitmap with these bits set."""
    bitmap = 0
    for index in indexes:
        bitmap |= 1 << index
    return bitmap
