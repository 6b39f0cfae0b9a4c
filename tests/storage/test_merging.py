"""A merge moves blocks and nothing else: guarded by generation, by the batch being there, and by a session's row."""

from dataclasses import replace

import pytest

from lowtide.domain.errors import BlocksMoved
from lowtide.domain.outcomes import Outcome
from lowtide.domain.times import HOUR_US
from lowtide.ports.metadata import Batch
from support.steps import WORKSPACE, Steps, rest, some


async def _ended(steps: Steps, segments: int = 4) -> Batch:
    """Return a batch that ended with so many segments of one block each."""
    batch = await steps.batch((8,) * segments)
    session = await steps.session()
    for held in await steps.claim(session, batch):
        await steps.commit(session, [rest(held)])
    await steps.store.end_session(session.id)
    return await steps.get(batch)


async def _keys(steps: Steps, batch: Batch) -> list[str]:
    return [it.key for it in await steps.store.blocks(WORKSPACE, batch.id, None, 1000)]


async def _doomed(steps: Steps) -> set[str]:
    return {it.key for it in await steps.store.doomed(1000)}


async def test_a_merged_block_takes_the_place_of_those_it_was_made_from(steps: Steps) -> None:
    batch = await _ended(steps)
    session = await steps.session()
    assert await steps.merge(session)
    (block,) = await steps.store.blocks(WORKSPACE, batch.id, None, 10)
    assert (block.key.split("/")[1], block.length, block.lines) == (session.id, 320, 32)
    assert await steps.get(batch) == batch
    assert await steps.store.find_unmerged(10) is None


async def test_what_is_merged_stands_in_front_of_what_is_not_merged_yet(steps: Steps) -> None:
    batch = await _ended(steps, 6)
    before = await _keys(steps, batch)
    session = await steps.session()
    for left in (4, 2, 0):
        found = await steps.store.find_unmerged(2)
        assert found is not None
        assert await steps.store.merge(steps.merged(session, found))
        after = await _keys(steps, batch)
        assert after[-left:] == before[-left:] if left else len(after) == 3
        assert len({*after} - {*before}) == len(after) - left


async def test_of_two_merges_of_the_same_blocks_one_wins(steps: Steps) -> None:
    batch = await _ended(steps)
    found = await steps.store.find_unmerged(3)
    assert found is not None
    one, other = await steps.session(), await steps.session()
    assert await steps.store.merge(steps.merged(one, found))
    stood = await _keys(steps, batch)
    assert not await steps.store.merge(steps.merged(other, found))
    assert await _keys(steps, batch) == stood


@pytest.mark.parametrize("how", ["deleted", "archived"])
async def test_a_batch_that_leaves_is_not_merged_any_more(steps: Steps, how: str) -> None:
    batch = await _ended(steps)
    found = await steps.store.find_unmerged(10)
    assert found is not None
    await (steps.store.delete_batch(WORKSPACE, batch.id) if how == "deleted" else steps.store.retire(0, 10))
    before = await _keys(steps, batch)
    assert not await steps.store.merge(steps.merged(await steps.session(), found))
    assert await _keys(steps, batch) == before
    assert await steps.store.find_unmerged(10) is None


async def test_a_merge_whose_session_is_past_is_refused_for_its_object_may_be_swept(steps: Steps) -> None:
    batch = await _ended(steps)
    found = await steps.store.find_unmerged(10)
    assert found is not None
    merge = steps.merged(await steps.session(lease_s=1), found)
    steps.clock.pass_lease(2)
    assert await steps.store.dead_segments([merge.segment_key]) == []
    await steps.store.reap()
    assert await steps.store.dead_segments([merge.segment_key]) == [merge.segment_key]
    before = await _keys(steps, batch)
    assert not await steps.store.merge(merge)
    assert await _keys(steps, batch) == before


async def test_a_merged_segment_is_not_dead_once_its_session_is_past(steps: Steps) -> None:
    batch = await _ended(steps)
    session = await steps.session()
    await steps.merge(session)
    await steps.store.end_session(session.id)
    assert await steps.store.dead_segments(await _keys(steps, batch)) == []


async def test_the_page_after_a_merge_says_that_blocks_moved(steps: Steps) -> None:
    batch = await _ended(steps)
    (first,) = await steps.store.blocks(WORKSPACE, batch.id, None, 1)
    await steps.merge(await steps.session())
    with pytest.raises(BlocksMoved):
        await steps.store.blocks(WORKSPACE, batch.id, first, 1)
    (again,) = await steps.store.blocks(WORKSPACE, batch.id, None, 1)
    assert await steps.store.blocks(WORKSPACE, batch.id, again, 1) == []


async def test_a_batch_that_needs_no_merge_is_looked_at_once_and_its_pages_go_on(steps: Steps) -> None:
    batch = await _ended(steps)
    (first,) = await steps.store.blocks(WORKSPACE, batch.id, None, 1)
    found = await steps.store.find_unmerged(0)
    assert found is not None
    assert (found.count, found.length, found.blocks) == (4, 320, [])
    assert await steps.store.merge(replace(steps.merged(await steps.session(), found), done=True))
    assert await steps.store.find_unmerged(10) is None
    assert len(await steps.store.blocks(WORKSPACE, batch.id, first, 10)) == 3


async def test_objects_of_emptied_segments_are_doomed_an_hour_later_and_once(steps: Steps) -> None:
    batch = await _ended(steps)
    old = set(await _keys(steps, batch))
    await steps.merge(await steps.session())
    (merged,) = await _keys(steps, batch)
    steps.clock.pass_wall(HOUR_US - 1)
    assert await steps.store.purge(HOUR_US, 10) == 0
    steps.clock.pass_wall(1)
    assert await steps.store.purge(HOUR_US, 10) == 4
    assert await _doomed(steps) == old
    assert await steps.store.dead_segments([*old]) == []
    assert await steps.store.purge(HOUR_US, 10) == 0
    await steps.store.delete_batch(WORKSPACE, batch.id)
    await steps.store.purge(0, 10)
    assert await _doomed(steps) == {*old, merged, batch.request_key}


async def test_a_batch_that_leaves_within_the_hour_dooms_each_object_once(steps: Steps) -> None:
    batch = await _ended(steps)
    old = set(await _keys(steps, batch))
    await steps.merge(await steps.session())
    (merged,) = await _keys(steps, batch)
    await steps.store.delete_batch(WORKSPACE, batch.id)
    steps.clock.pass_wall(HOUR_US)
    assert await steps.store.purge(HOUR_US, 10) == 6
    assert await _doomed(steps) == {*old, merged, batch.request_key}


@pytest.mark.parametrize("merged_first", [True, False])
async def test_a_segment_shared_with_another_batch_stays_until_neither_reads_it(
    steps: Steps, *, merged_first: bool
) -> None:
    """Emptied by a merge and by a purge, in either order; parts of the merged batch keep the row, not the object."""
    one, other = await steps.batch(), await steps.batch()
    session = await steps.session()
    held = [*await steps.claim(session, one), *await steps.claim(session, other)]
    await steps.commit(session, [rest(it) for it in held])
    (shared,) = await _keys(steps, one)
    if merged_first:
        await steps.merge(session)
        steps.clock.pass_wall(HOUR_US)
        assert await steps.store.purge(HOUR_US, 10) == 0
    await steps.store.delete_batch(WORKSPACE, other.id)
    steps.clock.pass_wall(HOUR_US)
    assert await steps.store.purge(HOUR_US, 10) == 1
    assert await _doomed(steps) == {other.request_key}
    if not merged_first:
        await steps.merge(session)
    steps.clock.pass_wall(HOUR_US)
    assert await steps.store.purge(HOUR_US, 10) == 1
    assert await _doomed(steps) == {other.request_key, shared}


async def test_a_commit_repeated_after_its_segment_was_merged_finds_itself(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    held = await steps.claim(session, batch)
    commit = steps.segment(session, [rest(held[0]), some(held[1], 0xFF)])
    answer = await steps.store.commit(commit)
    await steps.merge(await steps.session())
    assert await steps.store.commit(commit) == answer
    assert len(await _keys(steps, batch)) == 1


async def test_a_batch_of_derived_lines_alone_has_nothing_to_merge(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (held,) = await steps.claim(session, batch)
    await steps.commit(session, [some(held, 0, closing=Outcome.ERRORED, closing_error=b"{}")])
    assert await steps.merge(session)
    assert await _keys(steps, batch) == []
    assert await steps.store.find_unmerged(10) is None
