"""Who may delete: section 5 of the protocol, as directed schedules."""

import pytest

from lowtide.domain.errors import ObjectMissing
from lowtide.domain.times import DAY_US, HOUR_US
from lowtide.storage import purging
from support.steps import WORKSPACE, Steps, rest


async def _doomed(steps: Steps) -> set[str]:
    return {it.key for it in await steps.store.doomed(1000)}


async def test_batches_retire_by_their_age_since_creation(steps: Steps) -> None:
    old, running = await steps.finish(await steps.batch()), await steps.batch(window_us=100 * DAY_US)
    steps.clock.pass_wall(29 * DAY_US - 1)
    assert await steps.store.retire(29 * DAY_US, 10) == 0
    steps.clock.pass_wall(1)
    assert await steps.store.retire(29 * DAY_US, 10) == 1
    assert (await steps.get(old)).archived_us == steps.clock.wall
    assert (await steps.get(running)).archived_us is None


@pytest.mark.parametrize("how", ["archived", "deleted"])
async def test_rows_and_objects_go_an_hour_after_the_row_said_so(steps: Steps, how: str) -> None:
    batch = await steps.finish(await steps.batch((8, 8)))
    await (steps.store.retire(0, 10) if how == "archived" else steps.store.delete_batch(WORKSPACE, batch.id))
    (block,) = [it.key for it in await steps.store.blocks(WORKSPACE, batch.id, None, 1)]
    steps.clock.pass_wall(HOUR_US - 1)
    assert await steps.store.purge(HOUR_US, 10) == 0
    steps.clock.pass_wall(1)
    assert await steps.store.purge(HOUR_US, 10) == 2
    assert await _doomed(steps) == {block, batch.request_key}
    assert await steps.keys(batch) == []
    assert await steps.store.purge(HOUR_US, 10) == 0


async def test_a_page_of_a_purged_batch_is_an_error_and_never_an_empty_page(steps: Steps) -> None:
    batch = await steps.finish(await steps.batch())
    await steps.store.retire(0, 10)
    await steps.store.purge(0, 10)
    with pytest.raises(ObjectMissing):
        await steps.store.blocks(WORKSPACE, batch.id, None, 10)
    with pytest.raises(ObjectMissing):
        await steps.store.closings(WORKSPACE, batch.id, 0, 10)


async def test_an_archived_batch_stays_to_be_seen_and_a_deleted_one_goes_after_a_day(steps: Steps) -> None:
    archived, deleted = await steps.finish(await steps.batch()), await steps.finish(await steps.batch())
    await steps.store.delete_batch(WORKSPACE, deleted.id)
    await steps.store.retire(0, 10)
    steps.clock.pass_wall(DAY_US)
    await steps.store.purge(HOUR_US, 10)
    assert (await steps.store.get_batch(WORKSPACE, archived.id)) is not None
    assert (await steps.store.list_batches(WORKSPACE, 10, after_id=deleted.id)).batches == ()
    await steps.store.delete_batch(WORKSPACE, archived.id)
    steps.clock.pass_wall(DAY_US)
    await steps.store.purge(HOUR_US, 10)
    assert (await steps.store.list_batches(WORKSPACE, 10)).batches == ()


async def test_a_segment_shared_with_a_batch_that_stays_is_kept(steps: Steps) -> None:
    going, staying = await steps.batch(), await steps.batch()
    session = await steps.session()
    held = [*await steps.claim(session, going), *await steps.claim(session, staying)]
    await steps.commit(session, [rest(it) for it in held])
    await steps.store.delete_batch(WORKSPACE, going.id)
    await steps.store.purge(0, 10)
    assert await _doomed(steps) == {going.request_key}
    assert len(await steps.store.blocks(WORKSPACE, staying.id, None, 10)) == 1
    await steps.store.delete_batch(WORKSPACE, staying.id)
    await steps.store.purge(0, 10)
    assert len(await _doomed(steps)) == 3


async def test_a_large_batch_is_purged_in_bounded_steps(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "STEP_ROWS", 3)
    batch = await steps.finish(await steps.batch((2,) * 10))
    await steps.store.delete_batch(WORKSPACE, batch.id)
    assert await steps.store.purge(0, 10) == 2
    assert await steps.keys(batch) == []


async def test_keys_are_never_used_again(steps: Steps) -> None:
    """A worker that slept through the purge of its batch must not commit to another batch's chunk."""
    batch = await steps.batch()
    zombie = await steps.session("zombie")
    (old,) = await steps.claim(zombie, batch)
    await steps.store.release_worker("zombie")
    await steps.finish(batch)
    await steps.store.delete_batch(WORKSPACE, batch.id)
    steps.clock.pass_wall(DAY_US)
    await steps.store.purge(0, 10)
    heir = await steps.batch()
    (new,) = await steps.claim(await steps.session(), heir)
    assert (new.key > old.key, new.batch_key > old.batch_key) == (True, True)
    assert (await steps.commit(zombie, [rest(old)])).refused == {old.key}


async def test_abandoned_uploads_are_doomed_at_once_and_stale_ones_after_a_day(steps: Steps) -> None:
    for name in ("abandoned", "stale"):
        await steps.store.begin_upload(WORKSPACE, name, f"requests/{name}")
    await steps.store.abandon_upload(WORKSPACE, "abandoned")
    assert await steps.store.purge(HOUR_US, 10) == 1
    assert await _doomed(steps) == {"requests/abandoned"}
    steps.clock.pass_wall(DAY_US)
    assert await steps.store.purge(HOUR_US, 10) == 1
    await steps.store.forget(["requests/abandoned"])
    assert await _doomed(steps) == {"requests/stale"}


async def test_a_segment_is_dead_when_no_part_is_recorded_and_its_session_is_past(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session("worker")
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [rest(claimed)], number=1)
    recorded, put = f"segments/{session.id}/1", f"segments/{session.id}/2"
    assert await steps.store.dead_segments([recorded, put]) == []
    await steps.store.release_worker("worker")
    assert await steps.store.dead_segments([recorded, put, "segments/odd"]) == [put]


async def test_age_alone_proves_no_segment_dead(steps: Steps) -> None:
    session = await steps.session(lease_s=1)
    steps.clock.pass_wall(100 * DAY_US)
    steps.clock.pass_lease(10**6)
    put = f"segments/{session.id}/1"
    assert await steps.store.dead_segments([put]) == []
    await steps.store.reap()
    assert await steps.store.dead_segments([put]) == [put]
