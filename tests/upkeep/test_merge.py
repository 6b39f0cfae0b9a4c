"""Merging changes no byte of the results, loses nothing wherever it is cut, and leaves nothing behind."""

import asyncio
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lowtide.domain.errors import ObjectMissing, StorageError, StoreUnavailable
from lowtide.domain.times import HOUR_US, MINUTE_US, SECOND_US
from lowtide.faults import FaultError, registered
from lowtide.ports.metadata import Batch, Returned
from lowtide.results import blocks as result_blocks
from lowtide.results.reader import Results
from lowtide.storage import local_objects
from lowtide.upkeep import merge
from lowtide.upkeep.merge import Merger
from lowtide.upkeep.objects import Purger, Sweeper
from support.lab import Lab, lab_in, store_in
from support.reading import read_all, results_of

LEASE_S = 3600.0
POINTS = ["upkeep.put_merged", "store.merge", "store.open_session", "store.end_session"]
POINTS += ["objects.write", "objects.link", "objects.sync_folder"]


@dataclass(frozen=True)
class Layout:
    """How batches share segments: their sizes, how many commits, texts, and the share of parts that are refused."""

    sizes: list[int]
    commits: int
    text_bytes_max: int
    refused: float
    seed: int


async def lay_out(lab: Lab, layout: Layout) -> list[Batch]:
    """Run batches to their end over segments that they share; some parts are of a lease that was lost."""
    chance = random.Random(layout.seed)
    batches = [await lab.batches.create(size, chunk_size=8) for size in layout.sizes]
    sessions = [await lab.store.open_session(name, LEASE_S) for name in ("one", "other")]
    left = [
        (chunk, index)
        for batch in batches
        for chunk in await lab.batches.claim(sessions[0], batch)
        for index in range(chunk.size)
    ]
    chance.shuffle(left)
    lost = {chunk.key for chunk, _ in left if chance.random() < layout.refused}
    for number in range(layout.commits + 1):
        some = [left.pop() for _ in range(len(left) // (layout.commits + 1 - number))]
        chunks = {chunk.key: chunk for chunk, _ in some}
        found = [
            lab.batches.outcomes(
                chunk,
                text_bytes=chance.randint(1, layout.text_bytes_max),
                indexes=[index for one, index in some if one.key == key],
            )
            for key, chunk in chunks.items()
        ]
        if number == layout.commits // 2:
            claimed = {chunk.key: chunk for chunk, _ in left} | chunks
            back = [Returned(key, claimed[key].attempt) for key in lost & claimed.keys()]
            await lab.store.give_back(sessions[0].id, back)
        if found:
            await lab.batches.commit(sessions[0], number, found)
    for number, batch in enumerate(batches):
        held = await lab.batches.claim(sessions[1], batch)
        if held:
            await lab.batches.commit(sessions[1], number, [lab.batches.outcomes(chunk) for chunk in held])
    for session in sessions:
        await lab.store.end_session(session.id)
    return [await lab.batches.get(batch) for batch in batches]


PLAIN = Layout([200, 100], 60, 400, 0, 1)


def _merger(lab: Lab, blocks_min: int = 2) -> Merger:
    return Merger(lab.store, lab.objects, blocks_min)


async def _merge_all(merger: Merger) -> None:
    while await merger.step():
        pass


async def _tidy(lab: Lab) -> None:
    """Let the hour pass after which emptied segments go, and remove what is dead."""
    lab.clock.turn(HOUR_US + MINUTE_US)
    await lab.store.reap()
    purger, sweeper = Purger(lab.store, lab.objects), Sweeper(lab.store, lab.objects)
    while await purger.step():
        pass
    while await sweeper.step():
        pass


async def _keys(lab: Lab, batches: list[Batch]) -> set[str]:
    """Return the keys of the segments that the batches' blocks are in."""
    return {block.key for batch in batches for block in await lab.store.blocks(batch.workspace, batch.id, None, 10_000)}


@settings(max_examples=25, deadline=None)
@given(
    layout=st.builds(
        Layout,
        sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3),
        commits=st.integers(1, 20),
        text_bytes_max=st.sampled_from([1, 300, 60_000]),
        refused=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
        seed=st.integers(0, 2**32),
    ),
    step_bytes=st.sampled_from([1, 2000, 8 << 20]),
    step_blocks=st.sampled_from([1, 3, 2048]),
)
async def test_merged_results_are_the_same_bytes_and_nothing_else_is_left(
    layout: Layout, step_bytes: int, step_blocks: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "STEP_BYTES_MAX", step_bytes)
        patch.setattr(merge, "STEP_BLOCKS_MAX", step_blocks)
        async with lab_in(Path(directory)) as lab:
            batches = await lay_out(lab, layout)
            whole = [await results_of(lab, batch) for batch in batches]
            merger = _merger(lab)
            while await merger.step():
                assert [await results_of(lab, batch) for batch in batches] == whole
            await _tidy(lab)
            assert [await results_of(lab, batch) for batch in batches] == whole
            assert lab.keys("segments/") == await _keys(lab, batches)


async def test_tag_size_and_ranges_are_the_same_after_a_merge(lab: Lab) -> None:
    batch, _ = await lay_out(lab, PLAIN)
    whole = await results_of(lab, batch)
    before = await Results(lab.store, lab.objects).open(batch)
    await _merge_all(_merger(lab))
    after = await Results(lab.store, lab.objects).open(await lab.batches.get(batch))
    assert (after.etag, await after.size()) == (before.etag, await before.size())
    for start in range(0, len(whole), 997):
        assert await read_all(after.stream(start, start + 500)) == whole[start : start + 500]
        assert await read_all(before.stream(start)) == whole[start:]


async def test_a_merge_leaves_few_large_blocks(lab: Lab) -> None:
    batch, other = await lay_out(lab, Layout([400, 10], 300, 20_000, 0, 2))
    length = len(await results_of(lab, batch))
    await _merge_all(_merger(lab))
    blocks = await lab.store.blocks(batch.workspace, batch.id, None, 1000)
    assert len(blocks) <= length // (900 * 1024) + 1
    assert len({block.key for block in blocks}) == 1
    assert len(await lab.store.blocks(other.workspace, other.id, None, 1000)) == 1


@pytest.mark.parametrize("start", [0, 1234])
@pytest.mark.parametrize("taken", [1, 2, 5])
async def test_a_download_goes_on_across_a_merge(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, taken: int, start: int
) -> None:
    monkeypatch.setattr(result_blocks, "PAGE_BLOCKS", 7)
    monkeypatch.setattr("lowtide.results.reader.PAGE_BLOCKS", 7)
    monkeypatch.setattr(result_blocks, "_STEP_BLOCKS_MAX", 3)
    monkeypatch.setattr(merge, "STEP_BLOCKS_MAX", 11)
    batch, _ = await lay_out(lab, PLAIN)
    whole = await results_of(lab, batch)
    opened = await Results(lab.store, lab.objects).open(batch)
    stream = opened.stream(start)
    received = b"".join([await anext(stream) for _ in range(taken)])
    await _merger(lab).step()
    received += await anext(stream)
    await _merge_all(_merger(lab))
    assert received + await read_all(stream) == whole[start:]
    assert await opened.size() == len(whole)


async def test_a_download_that_began_before_a_merge_has_an_hour(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_blocks, "_STEP_BLOCKS_MAX", 3)
    batch, _ = await lay_out(lab, PLAIN)
    whole = await results_of(lab, batch)
    stream = (await Results(lab.store, lab.objects).open(batch)).stream()
    received = await anext(stream)
    await _merge_all(_merger(lab))
    lab.clock.turn(HOUR_US - MINUTE_US)
    while await Purger(lab.store, lab.objects).step():
        pass
    assert received + await read_all(stream) == whole


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", POINTS)
async def test_an_error_at_any_point_loses_nothing_and_the_next_round_merges(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    monkeypatch.setattr(merge, "STEP_BLOCKS_MAX", 20)
    batches = await lay_out(lab, PLAIN)
    whole = [await results_of(lab, batch) for batch in batches]
    merger = _merger(lab)
    await merger.step()
    registered()[name].arm(f"error-{moment}")
    try:
        await merger.step()
    except (StorageError, FaultError):
        assert [await results_of(lab, batch) for batch in batches] == whole
    assert registered()[name]._armed is None
    await _merge_all(merger)
    await _tidy(lab)
    assert [await results_of(lab, batch) for batch in batches] == whole
    assert lab.keys("segments/") == await _keys(lab, batches)


async def test_two_mergers_at_once_double_nothing(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "STEP_BLOCKS_MAX", 9)
    batches = await lay_out(lab, PLAIN)
    whole = [await results_of(lab, batch) for batch in batches]
    async with store_in(tmp_path, lab.clock) as other:
        mergers = [_merger(lab), Merger(other, lab.objects, 2)]
        with capture_logs() as logs:
            while await lab.store.find_unmerged(0):
                await asyncio.gather(*(merger.step() for merger in mergers))
    assert {log["stood"] for log in logs} == {True, False}
    assert [await results_of(lab, batch) for batch in batches] == whole
    await _tidy(lab)
    assert [await results_of(lab, batch) for batch in batches] == whole
    assert lab.keys("segments/") == await _keys(lab, batches)


@pytest.mark.parametrize("how", ["deleted", "archived"])
async def test_a_batch_that_leaves_while_it_is_merged_leaves_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    batch, other = await lay_out(lab, PLAIN)
    whole = await results_of(lab, other)
    put = lab.objects.put

    async def leave_then_put(key: str, pieces: list[bytes]) -> None:
        await put(key, pieces)
        if how == "deleted":
            await lab.store.delete_batch(batch.workspace, batch.id)
        elif (await lab.batches.get(batch)).archived_us is None:
            lab.clock.turn(SECOND_US)
            await lab.store.retire(0, 1)

    monkeypatch.setattr(lab.objects, "put", leave_then_put)
    assert not await _merger(lab).step()
    monkeypatch.undo()
    await _merge_all(_merger(lab))
    for _ in range(2):  # what the purge itself emptied has an hour too: the other batch was merged at any time before
        await _tidy(lab)
    assert await results_of(lab, other) == whole
    assert lab.keys("segments/") == await _keys(lab, [other])
    with pytest.raises(ObjectMissing):
        await lab.store.blocks(batch.workspace, batch.id, None, 1)


async def test_a_merger_that_slept_past_its_lease_records_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = await lay_out(lab, PLAIN)
    whole = await results_of(lab, batch)
    put = lab.objects.put

    async def put_and_sleep(key: str, pieces: list[bytes]) -> None:
        await put(key, pieces)
        await _tidy(lab)
        assert lab.keys(key) == set()

    monkeypatch.setattr(lab.objects, "put", put_and_sleep)
    assert not await _merger(lab).step()
    assert await results_of(lab, batch) == whole


async def test_a_batch_of_few_or_large_blocks_is_left_as_it_is(lab: Lab) -> None:
    few, _ = await lay_out(lab, Layout([30, 1], 10, 100, 0, 3))
    large = await lab.batches.run(await lab.batches.create(80, chunk_size=2), each=1, text_bytes=200_000)
    before = await _keys(lab, [few, large])
    await _merge_all(_merger(lab, 20))
    assert await _keys(lab, [few, large]) == before
    assert await lab.store.find_unmerged(1) is None


async def test_a_damaged_batch_is_left_as_it_is_and_holds_up_no_other(lab: Lab) -> None:
    hurt = await lab.batches.run(await lab.batches.create(160), each=1)
    whole_one = await lab.batches.run(await lab.batches.create(160), each=1)
    before, whole = await _keys(lab, [hurt]), await results_of(lab, whole_one)
    path = lab.root / sorted(before)[2]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with capture_logs() as logs:
        await _merge_all(_merger(lab))
    assert [log["batch"] for log in logs if log["log_level"] == "error"] == [hurt.id]
    assert await _keys(lab, [hurt]) == before
    assert len(await _keys(lab, [whole_one])) == 1
    assert await results_of(lab, whole_one) == whole


async def test_a_full_disk_is_no_damage_and_the_merge_is_taken_up_again(lab: Lab) -> None:
    batch, _ = await lay_out(lab, PLAIN)
    local_objects.WRITE.arm("error-before")
    with pytest.raises(StorageError):
        await _merger(lab).step()
    await _merge_all(_merger(lab))
    assert len(await _keys(lab, [batch])) == 1


async def test_a_database_that_is_away_leaves_the_session_to_the_reaper(lab: Lab) -> None:
    batch, _ = await lay_out(lab, PLAIN)
    registered()["store.merge"].arm("error-before")
    registered()["store.end_session"].arm("error-before")
    with pytest.raises(StoreUnavailable):
        await _merger(lab).step()
    await _merge_all(_merger(lab))
    lab.clock.turn(2 * MINUTE_US)
    assert (await lab.store.reap()).sessions == 1
    await _tidy(lab)
    assert lab.keys("segments/") >= await _keys(lab, [batch])
