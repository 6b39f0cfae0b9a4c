"""Only rows prove a segment dead: what a session may still record, or has recorded, is never swept."""

import contextlib

from lowtide.domain.errors import SessionPast
from lowtide.domain.ids import DEFAULT_WORKSPACE, new_token
from lowtide.domain.outcomes import Counts
from lowtide.domain.times import DAY_US, HOUR_US, SECOND_US
from lowtide.upkeep.objects import Purger, Sweeper
from support.lab import Lab
from support.reading import counts_of, results_of

LEASE_S = 15


async def _sweep(lab: Lab) -> None:
    sweeper = Sweeper(lab.store, lab.objects)
    while await sweeper.step():
        pass


async def _let_leases_run_out(lab: Lab) -> None:
    lab.clock.turn((LEASE_S + 1) * SECOND_US)
    assert (await lab.store.reap()).sessions == 1


async def test_a_segment_of_a_live_session_stays_however_old(lab: Lab) -> None:
    batch = await lab.batches.create(32, window_us=90 * DAY_US)
    session = await lab.store.open_session("w", 90 * DAY_US / SECOND_US)
    (chunk,) = await lab.batches.claim(session, batch)
    commit = await lab.batches.put_segment(session, 0, [lab.batches.outcomes(chunk)])
    lab.clock.turn(60 * DAY_US)
    await _sweep(lab)
    assert lab.keys("segments/") == {commit.segment_key}
    await lab.store.commit(commit)
    assert counts_of(await results_of(lab, batch)) == Counts(succeeded=32)


async def test_a_segment_with_a_recorded_part_stays_when_its_session_is_past(lab: Lab) -> None:
    batch = await lab.batches.create(64)
    session = await lab.store.open_session("w", LEASE_S)
    first, _second = await lab.batches.claim(session, batch)
    commit = await lab.batches.put_segment(session, 0, [lab.batches.outcomes(first)])
    await lab.store.commit(commit)
    await _let_leases_run_out(lab)
    await _sweep(lab)
    assert lab.keys("segments/") == {commit.segment_key}


async def test_an_orphan_of_a_past_session_is_removed(lab: Lab) -> None:
    batch = await lab.batches.create(32)
    session = await lab.store.open_session("w", LEASE_S)
    (chunk,) = await lab.batches.claim(session, batch)
    await lab.batches.put_segment(session, 0, [lab.batches.outcomes(chunk)])
    await _let_leases_run_out(lab)
    await _sweep(lab)
    assert lab.keys("segments/") == set()


async def test_a_worker_that_commits_after_the_sweep_is_refused_and_nothing_is_lost(lab: Lab) -> None:
    batch = await lab.batches.create(32)
    paused = await lab.store.open_session("paused", LEASE_S)
    (chunk,) = await lab.batches.claim(paused, batch)
    commit = await lab.batches.put_segment(paused, 0, [lab.batches.outcomes(chunk, lambda _: True)])
    await _let_leases_run_out(lab)
    await _sweep(lab)
    committed = None
    with contextlib.suppress(SessionPast):
        committed = await lab.store.commit(commit)
    assert committed is None or committed.accepted == frozenset()
    await lab.batches.run(batch)
    assert counts_of(await results_of(lab, batch)) == Counts(succeeded=32)


async def test_a_sweep_goes_through_more_objects_than_one_step_takes(lab: Lab) -> None:
    session = await lab.store.open_session("w", LEASE_S)
    await lab.store.end_session(session.id)
    for number in range(1100):
        (lab.root / "segments" / session.id).mkdir(parents=True, exist_ok=True)
        (lab.root / "segments" / session.id / str(number)).write_bytes(b"x")
    await _sweep(lab)
    assert lab.keys("segments/") == set()


async def test_the_object_of_an_abandoned_upload_is_removed_and_that_of_a_batch_stays(lab: Lab) -> None:
    batch = await lab.batches.create(8)
    upload = new_token()
    key = f"requests/{upload}"
    await lab.store.begin_upload(DEFAULT_WORKSPACE, upload, key)
    await lab.objects.put(key, [b"never a batch"])
    await lab.store.abandon_upload(DEFAULT_WORKSPACE, upload)
    lab.clock.turn(2 * HOUR_US)
    purger = Purger(lab.store, lab.objects)
    while await purger.step():
        pass
    assert lab.keys() == {batch.request_key}
