"""The tables refuse nonsense by themselves, whatever a statement does."""

import random
from typing import Any

import pytest
from sqlalchemy import BigInteger, Connection, Text, select, text, update
from sqlalchemy.exc import IntegrityError

from lowtide.faults import FaultPoint
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import batch, chunk, popcount
from support.steps import Steps, some

_SET = FaultPoint("test", "a row is set by hand")


async def _set(steps: Steps, table: Any, **values: Any) -> None:
    def work(conn: Connection, _now: Moment) -> None:
        conn.execute(update(table).values(**values))

    await steps.store._write(_SET, work)


NONSENSE = [
    {"state": "lost"},
    {"size": 0},
    {"size": 33},
    {"resolved": 0b1},
    {"succeeded": 1},
    {"resolved": 1 << 8, "succeeded": 1},
    {"resolved": -1},
    {"condemned": 1 << 8},
    {"state": "leased"},
    {"session": "s"},
    {"state": "closed"},
    {"closing": "expired"},
    {"state": "closed", "closing": "succeeded"},
    {"state": "closed", "closing": "errored"},
    {"state": "closed", "closing": "expired", "closing_error": "{}"},
    {"resolved": 0xFF, "succeeded": 8},
    {"losses": -1},
    {"output_tokens": -1},
]


@pytest.mark.parametrize("values", NONSENSE, ids=str)
async def test_a_chunk_refuses_nonsense(steps: Steps, values: dict[str, Any]) -> None:
    await steps.batch()
    with pytest.raises(IntegrityError):
        await _set(steps, chunk, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"state": "archived"},
        {"state": "ended"},
        {"ended_us": 1},
        {"state": "ended", "ended_us": 1, "open_chunks": 0},
        {"state": "ended", "ended_us": 1, "succeeded": 8},
        {"state": "canceling"},
        {"archived_us": 1},
        {"deleted_us": 1},
        {"open_chunks": -1},
        {"purge": 1},
    ],
    ids=str,
)
async def test_a_batch_refuses_nonsense(steps: Steps, values: dict[str, Any]) -> None:
    await steps.batch()
    with pytest.raises(IntegrityError):
        await _set(steps, batch, **values)


async def test_a_part_of_another_count_than_its_bits_is_refused_as_a_whole_commit(steps: Steps) -> None:
    created = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, created)
    with pytest.raises(IntegrityError):
        await steps.commit(session, [some(claimed, 0b11, errored=-1)])
    assert (await steps.row(claimed.key))["resolved"] == 0


async def test_popcount_counts_the_bits_of_every_bitmap(steps: Steps) -> None:
    pick = random.Random(1)
    bitmaps = [0, 1, 2**31, 2**32 - 1, *(pick.getrandbits(32) for _ in range(500))]
    source = records(("bitmap", BigInteger()))
    counted = select(source.c.bitmap, text(popcount("rows.bitmap"))).select_from(source)
    found = await steps.store._read(lambda conn: conn.execute(counted, {"rows": packed((it,) for it in bitmaps)}).all())
    assert [tuple(row) for row in found] == [(it, it.bit_count()) for it in bitmaps]


async def test_rows_travel_whole_in_one_bound_value(steps: Steps) -> None:
    rows = [(-(2**63), "é\"'\\", None), (2**63 - 1, "", 1)]
    source = records(("number", BigInteger()), ("text", Text()), ("none", BigInteger()))
    found = await steps.store._read(lambda conn: conn.execute(select(source), {"rows": packed(rows)}).all())
    assert [tuple(row) for row in found] == rows
