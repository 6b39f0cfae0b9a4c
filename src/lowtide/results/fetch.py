"""Fetching many small ranges of objects at once.

Slow models leave thousands of small segments, and the heads of a canceled batch lie between its params: paying a hop
to a thread, or a round trip to S3, for each would cost more than the bytes. Neighbours in one object are read in one
range, and all ranges of a fetch in one call of the port. What it returns is not verified: that is its callers' duty.
"""

from collections.abc import Sequence

from lowtide.ports.objects import ObjectRange, ObjectStore

_GAP_BYTES_MAX = 4096
"""Bytes between two ranges that are cheaper read than skipped."""


async def fetch(objects: ObjectStore, wanted: Sequence[ObjectRange]) -> list[memoryview]:
    """Return the bytes of each range, in order; raises ObjectMissing and ObjectDamaged as the port does."""
    merged = _merge(wanted)
    found = await objects.read_many([range_ for range_, _ in merged])
    views = []
    for data, (range_, members) in zip(found, merged, strict=True):
        whole = memoryview(data)
        views += [whole[start : start + length] for start, length in members]
        assert len(whole) == range_.length
    return views


def _merge(wanted: Sequence[ObjectRange]) -> list[tuple[ObjectRange, list[tuple[int, int]]]]:
    """Join ranges that follow each other in one object; each comes with its members' places in it."""
    merged: list[tuple[ObjectRange, list[tuple[int, int]]]] = []
    for one in wanted:
        if merged:
            last, members = merged[-1]
            gap = one.offset - last.offset - last.length
            if one.key == last.key and 0 <= gap <= _GAP_BYTES_MAX:
                start = one.offset - last.offset
                members.append((start, one.length))
                merged[-1] = (ObjectRange(last.key, last.offset, start + one.length), members)
                continue
        merged.append((one, [(0, one.length)]))
    return merged
