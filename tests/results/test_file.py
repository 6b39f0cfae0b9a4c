"""The results as a file: any range of it, a fixed order, one tag, constant memory, and nothing left running."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.domain.times import DAY_US, SECOND_US
from lowtide.ports.metadata import Batch
from lowtide.results.reader import Results, ResultsFile
from support.batches import custom_id
from support.lab import Lab, store_in
from support.reading import outcomes_by_id, read_all, results_of

MEMORY_BYTES_MAX = 16 * 1024 * 1024


async def _opened(lab: Lab, batch: Batch) -> ResultsFile:
    return await Results(lab.store, lab.objects).open(await lab.batches.get(batch))


async def _mixed(lab: Lab) -> Batch:
    """Return an ended batch with many blocks, a few large ones, and derived lines."""
    batch = await lab.batches.create(400, chunk_size=16)
    session = await lab.store.open_session("w", 60)
    held = await lab.batches.claim(session, batch, limit=15)
    for number, chunk in enumerate(held):
        text_bytes = 30_000 if number % 5 == 0 else 10
        await lab.batches.commit(session, number, [lab.batches.outcomes(chunk, text_bytes=text_bytes)])
    await lab.store.end_session(session.id)
    await lab.store.cancel_batch(batch.workspace, batch.id)
    await lab.store.close_canceling(100)
    return batch


@pytest.fixture
async def mixed(lab: Lab) -> tuple[ResultsFile, bytes]:
    batch = await _mixed(lab)
    return await _opened(lab, batch), await results_of(lab, batch)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
async def test_every_range_is_that_slice_of_the_whole(mixed: tuple[ResultsFile, bytes], data: st.DataObject) -> None:
    opened, whole = mixed
    length = len(whole)
    start = data.draw(st.integers(0, length) | st.integers(length - 12_000, length))
    end = data.draw(st.none() | st.integers(0, length) | st.integers(start, min(start + 100, length)))
    assert await opened.size() == length
    assert await read_all(opened.stream(start, end)) == whole[start : max(end, start) if end is not None else None]


async def test_the_order_and_the_tag_never_change(lab: Lab, tmp_path: Path) -> None:
    batch = await _mixed(lab)
    other = await lab.batches.run(await lab.batches.create(10))
    opened = await _opened(lab, batch)
    first = await read_all(opened.stream())
    lab.clock.turn(DAY_US)
    async with store_in(tmp_path, lab.clock) as restarted:
        again = await Results(restarted, lab.objects).open(await lab.batches.get(batch))
        assert await read_all(again.stream()) == first
        assert again.etag == opened.etag
    assert opened.etag.startswith('"')
    assert opened.etag.endswith('"')
    assert (await _opened(lab, other)).etag != opened.etag


async def test_an_end_past_the_file_raises(lab: Lab) -> None:
    batch = await lab.batches.create(3)
    await lab.batches.run(batch)
    opened = await _opened(lab, batch)
    with pytest.raises(Exception, match="end before byte"):
        await read_all(opened.stream(0, await opened.size() + 1))


@pytest.mark.parametrize("outcome", ["canceled", "expired"])
async def test_a_hundred_thousand_derived_lines_stream_at_constant_memory(lab: Lab, outcome: str) -> None:
    batch = await lab.batches.create(100_000, params=b'{"model":"m","messages":[]}' * 8)
    if outcome == "canceled":
        await lab.store.cancel_batch(batch.workspace, batch.id)
        while await lab.store.close_canceling(512):
            pass
    else:
        lab.clock.turn(DAY_US + SECOND_US)
        assert await lab.store.expire(1) == 1
    opened = await _opened(lab, batch)
    lines = 0
    tracemalloc.start()
    try:
        async for piece in opened.stream():
            lines += piece.count(b'"%b"' % outcome.encode())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines == 100_000
    assert peak_bytes <= MEMORY_BYTES_MAX
    found = outcomes_by_id(await results_of(lab, batch))
    assert list(found) == [custom_id(index) for index in range(100_000)]


async def test_a_large_file_streams_at_constant_memory(lab: Lab) -> None:
    batch = await lab.batches.create(2000)
    await lab.batches.run(batch, each=8, text_bytes=20_000)
    opened = await _opened(lab, batch)
    length = 0
    tracemalloc.start()
    try:
        async for piece in opened.stream():
            length += len(piece)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length == await opened.size() > 2 * MEMORY_BYTES_MAX
    assert peak_bytes <= MEMORY_BYTES_MAX


async def test_closing_the_stream_leaves_nothing_running(lab: Lab) -> None:
    batch = await lab.batches.create(640)
    await lab.batches.run(batch, each=1, text_bytes=20_000)
    before = asyncio.all_tasks()
    stream = (await _opened(lab, batch)).stream()
    await anext(stream)
    assert asyncio.all_tasks() > before
    await stream.aclose()
    assert asyncio.all_tasks() == before
