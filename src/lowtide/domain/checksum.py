"""The checksum of everything Lowtide stores: XXH3-64 as a signed integer, which fits a BIGINT column.

It detects damage (a flipped bit, a short read, the wrong object); it is no defence against a forger.
"""

from collections.abc import Iterable

import xxhash

from lowtide.domain.errors import ObjectDamaged


def checksum(data: bytes | memoryview) -> int:
    """Return the XXH3-64 digest of `data` as a signed 64-bit integer."""
    return int.from_bytes(xxhash.xxh3_64_digest(data), "big", signed=True)


def checksum_of(pieces: Iterable[bytes | memoryview]) -> int:
    """Return what `checksum` returns for the joined pieces, without joining them."""
    state = xxhash.xxh3_64()
    for piece in pieces:
        state.update(piece)
    return int.from_bytes(state.digest(), "big", signed=True)


def prove(data: bytes | memoryview, digest: int, key: str, offset: int) -> None:
    """Raise ObjectDamaged unless `data`, read at `offset` of the object `key`, is what `digest` was made of."""
    if checksum(data) != digest:
        raise ObjectDamaged(f"the block at {offset} of {key} does not match its checksum")
