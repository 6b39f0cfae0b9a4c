"""Fetching many ranges gives exactly those bytes, however near or far they lie."""

import pytest

from lowtide.domain.errors import ObjectDamaged, ObjectMissing
from lowtide.ports.objects import ObjectRange
from lowtide.results.fetch import fetch
from support.lab import Lab

DATA = bytes(index % 251 for index in range(100_000))


async def test_ranges_come_in_the_order_asked_for_whether_joined_or_not(lab: Lab) -> None:
    await lab.objects.put("segments/s/1", [DATA])
    await lab.objects.put("segments/s/2", [DATA[::-1]])
    wanted = [
        *[("segments/s/1", 0, 10), ("segments/s/1", 10, 20), ("segments/s/1", 4000, 5), ("segments/s/1", 90_000, 5)],
        *[("segments/s/2", 90_005, 7), ("segments/s/1", 90_012, 0), ("segments/s/1", 3, 9), ("segments/s/1", 5, 9)],
    ]
    found = await fetch(lab.objects, [ObjectRange(*one) for one in wanted])
    assert [bytes(view) for view in found] == [
        (DATA if key.endswith("1") else DATA[::-1])[offset : offset + length] for key, offset, length in wanted
    ]


async def test_one_missing_or_short_object_fails_the_whole_fetch(lab: Lab) -> None:
    await lab.objects.put("segments/s/1", [b"abc"])
    whole = ObjectRange("segments/s/1", 0, 3)
    with pytest.raises(ObjectMissing):
        await fetch(lab.objects, [whole, ObjectRange("segments/s/2", 0, 1)])
    with pytest.raises(ObjectDamaged):
        await fetch(lab.objects, [whole, ObjectRange("segments/s/1", 3, 1)])
