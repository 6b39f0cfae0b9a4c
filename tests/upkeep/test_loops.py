"""What the loops do together: each has its effect, several processes run them, and a stop ends them all."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lowtide.domain.limits import Limits
from lowtide.domain.outcomes import Counts
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from lowtide.upkeep import objects
from lowtide.upkeep.loops import Upkeep, UpkeepIntervals
from support.lab import Lab, store_in

OFTEN = UpkeepIntervals(0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, expire_grace_s=0)
SELDOM = UpkeepIntervals(*[3600.0] * 7)


def _upkeep(lab: Lab, intervals: UpkeepIntervals = OFTEN) -> Upkeep:
    return Upkeep(lab.store, lab.objects, lab.clock, Limits(), intervals)


async def _until_ended(lab: Lab, batch_id: str, workspace: str) -> None:
    while True:
        found = await lab.store.get_batch(workspace, batch_id)
        if found is not None and found.state is BatchState.ENDED:
            return
        await lab.store.changed(0.05)


async def test_a_past_session_is_reaped_and_its_chunks_are_open_again(lab: Lab) -> None:
    batch = await lab.batches.create(64)
    session = await lab.store.open_session("w", 2)
    await lab.batches.claim(session, batch)
    upkeep = _upkeep(lab)
    await upkeep._reap()
    assert await lab.store.backlogs() == []
    lab.clock.turn_lease(3 * SECOND_US)
    with capture_logs() as logs:
        await upkeep._reap()
    (backlog,) = await lab.store.backlogs()
    assert backlog.open == 2
    assert [(log["event"], log["sessions"], log["losses"]) for log in logs] == [("upkeep.reaped", 1, 2)]


async def test_a_canceling_batch_is_closed_and_ends(lab: Lab) -> None:
    batch = await lab.batches.create(20_000)
    await lab.store.cancel_batch(batch.workspace, batch.id)
    stop = asyncio.Event()
    running = asyncio.create_task(_upkeep(lab).run(stop))
    await _until_ended(lab, batch.id, batch.workspace)
    stop.set()
    await running
    assert (await lab.batches.get(batch)).counts == Counts(canceled=20_000)


async def test_two_processes_run_the_same_loops_and_each_effect_happens_once(lab: Lab, tmp_path: Path) -> None:
    batches = [await lab.batches.create(200) for _ in range(6)]
    for batch in batches[:3]:
        await lab.store.cancel_batch(batch.workspace, batch.id)
    lab.clock.turn(DAY_US + SECOND_US)
    stop = asyncio.Event()
    async with store_in(tmp_path, lab.clock) as other:
        with capture_logs() as logs:
            running = [
                asyncio.create_task(Upkeep(store, lab.objects, lab.clock, Limits(), OFTEN).run(stop))
                for store in (lab.store, other)
            ]
            for batch in batches:
                await _until_ended(lab, batch.id, batch.workspace)
            stop.set()
            await asyncio.gather(*running)
    assert not [log for log in logs if log["event"] == "upkeep.ended_late"]
    for batch in batches[:3]:
        assert (await lab.batches.get(batch)).counts == Counts(canceled=200)
    for batch in batches[3:]:
        assert (await lab.batches.get(batch)).counts == Counts(expired=200)


async def test_end_check_leaves_alone_what_runs(lab: Lab) -> None:
    batch = await lab.batches.create(64)
    with capture_logs() as logs:
        await _upkeep(lab)._end_check()
    assert logs == []
    assert (await lab.batches.get(batch)).state is BatchState.IN_PROGRESS


async def test_expiry_waits_until_workers_had_their_grace_after_a_start(lab: Lab) -> None:
    batch = await lab.batches.create(10)
    lab.clock.turn(2 * DAY_US)
    upkeep = _upkeep(lab, UpkeepIntervals())
    for _ in range(3):
        await upkeep._expiry.step()
        assert (await lab.batches.get(batch)).state is BatchState.IN_PROGRESS
        lab.clock.turn_lease(20 * SECOND_US)
    await upkeep._expiry.step()
    assert (await lab.batches.get(batch)).counts == Counts(expired=10)


async def test_expiry_waits_again_after_the_machine_slept(lab: Lab) -> None:
    upkeep = _upkeep(lab, UpkeepIntervals())
    for _ in range(5):
        await upkeep._expiry.step()
        lab.clock.turn_lease(20 * SECOND_US)
    batch = await lab.batches.create(10)
    lab.clock.turn(2 * DAY_US)
    for _ in range(3):
        await upkeep._expiry.step()
        assert (await lab.batches.get(batch)).state is BatchState.IN_PROGRESS
        lab.clock.turn_lease(20 * SECOND_US)
    await upkeep._expiry.step()
    assert (await lab.batches.get(batch)).state is BatchState.ENDED


async def test_results_go_29_days_after_creation_and_the_batch_stays_listed(lab: Lab) -> None:
    batch = await lab.batches.create(64)
    await lab.batches.run(batch)
    upkeep = _upkeep(lab)
    lab.clock.turn(29 * DAY_US - MINUTE_US)
    await upkeep._retire()
    assert (await lab.batches.get(batch)).state is BatchState.ENDED
    lab.clock.turn(2 * MINUTE_US)
    await upkeep._retire()
    await upkeep._purger.step()
    assert lab.keys("segments/")
    lab.clock.turn(HOUR_US + MINUTE_US)
    while await upkeep._purger.step():
        pass
    assert lab.keys() == set()
    (listed,) = (await lab.store.list_batches(batch.workspace, 20)).batches
    assert listed.state is BatchState.ARCHIVED
    assert listed.archived_us is not None
    assert listed.counts == Counts(succeeded=64)


async def test_objects_of_a_deleted_batch_go_an_hour_later(lab: Lab) -> None:
    batch = await lab.batches.create(64)
    await lab.batches.run(batch)
    kept = lab.keys()
    await lab.store.delete_batch(batch.workspace, batch.id)
    assert await lab.store.get_batch(batch.workspace, batch.id) is None
    upkeep = _upkeep(lab)
    lab.clock.turn(HOUR_US - MINUTE_US)
    await upkeep._purger.step()
    assert lab.keys() == kept
    lab.clock.turn(2 * MINUTE_US)
    while await upkeep._purger.step():
        pass
    assert lab.keys() == set()


async def test_a_deletion_that_fails_is_taken_up_again(lab: Lab) -> None:
    batch = await lab.batches.create(64)
    await lab.batches.run(batch)
    await lab.store.delete_batch(batch.workspace, batch.id)
    lab.clock.turn(HOUR_US + MINUTE_US)
    upkeep = _upkeep(lab)
    objects.DELETE_OBJECT.arm("error-before")
    with pytest.raises(ExceptionGroup):
        await upkeep._purger.step()
    objects.FORGET_OBJECTS.arm("error-before")
    with pytest.raises(Exception, match="fault injected"):
        await upkeep._purger.step()
    while await upkeep._purger.step():
        pass
    assert lab.keys() == set()
    assert await lab.store.doomed(10) == []


async def test_a_stop_ends_all_loops_while_they_wait(lab: Lab) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(_upkeep(lab, SELDOM).run(stop))
    await asyncio.sleep(0)
    stop.set()
    await running
