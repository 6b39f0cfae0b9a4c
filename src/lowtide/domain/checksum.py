"""The checksum of everything Lowtide stores: XXH3-64 as a signed integer, which fits a BIGINT column.

It detects damage (a flipped bit, a short read, the wrong object); it is no defence against a forger.
"""

import xxhash


def checksum(data: bytes | memoryview) -> int:
    """Return the XXH3-64 digest of `data` as a signed 64-bit integer."""
    return int.from_bytes(xxhash.xxh3_64_digest(data), "big", signed=True)
