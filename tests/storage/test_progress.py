"""What the store tells of work under way: live counts, recent commits, workers and their counters, at any moment."""

from dataclasses import replace

import pytest

from lowtide.domain.errors import SessionPast
from lowtide.domain.outcomes import Counts, Outcome, Usage
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US, MINUTE_US, SECOND_US
from lowtide.ports.live import Advance, Progress
from lowtide.ports.metadata import MERGER, Batch
from lowtide.ports.report import Count, LaneReport, Report, UpstreamTrouble
from support.steps import EACH, WORKSPACE, Steps, rest, some

LANE = LaneReport("box", 3, 64)


async def progress(steps: Steps, of: Batch) -> Progress:
    found = await steps.store.progress(of.workspace, of.id)
    assert found is not None
    return found


async def counters(steps: Steps) -> dict[tuple[str, ...], int]:
    return {(it.name, *it.labels): it.value for it in (await steps.store.gauges()).counters}


def times(count: int) -> Usage:
    return sum([EACH] * count, Usage())


# ---------------------------------------------------------------------------------------------- batches


async def test_counts_and_usage_are_live_while_the_batch_still_says_processing(steps: Steps) -> None:
    batch = await steps.batch((8, 8, 8))
    session = await steps.session()
    held = await steps.claim(session, batch)
    await steps.commit(session, [rest(held[0]), some(held[1], 0b111, errored=1)])
    found = await progress(steps, batch)
    assert found.counts == Counts(processing=13, succeeded=10, errored=1)
    assert found.usage == times(10)
    assert (found.open, found.leased, found.closed) == (0, 2, 1)
    assert found.batch.counts == Counts(processing=24)


async def test_counts_of_a_canceling_batch_move_as_its_chunks_close(steps: Steps) -> None:
    batch = await steps.batch((8, 8, 8))
    session = await steps.session()
    (first, *_) = await steps.store.claim(session.id, (await steps.keys(batch))[:1])
    await steps.commit(session, [some(first, 0b11)])
    await steps.store.cancel_batch(WORKSPACE, batch.id)
    await steps.store.close_canceling(1)
    found = await progress(steps, batch)
    assert found.batch.state is BatchState.CANCELING
    assert found.counts == Counts(processing=14, succeeded=2, canceled=8)


async def test_requests_closed_as_errored_together_count_as_errored(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    held = await steps.claim(session, batch)
    await steps.commit(session, [some(held[0], 0b1, closing=Outcome.ERRORED, closing_error=b"{}")])
    assert (await progress(steps, batch)).counts == Counts(processing=8, succeeded=1, errored=7)


async def test_a_batch_that_has_ended_says_what_its_row_says(steps: Steps) -> None:
    ended = await steps.finish(await steps.batch((8, 5)))
    found = await progress(steps, ended)
    assert found.batch == ended
    assert (found.counts, found.usage) == (Counts(succeeded=13), times(13))
    assert (found.open, found.leased, found.closed) == (0, 0, 2)


async def test_models_are_those_with_requests_outstanding(steps: Steps) -> None:
    batch = await steps.batch((8,))
    assert list((await progress(steps, batch)).models) == ["m"]
    assert list((await progress(steps, await steps.finish(batch))).models) == []


async def test_recent_commits_come_newest_first_and_of_this_batch_alone(steps: Steps) -> None:
    batch, other = await steps.batch((8, 8, 8)), await steps.batch((8,))
    session = await steps.session(lease_s=3600)
    held, foreign = await steps.claim(session, batch), await steps.claim(session, other)
    await steps.commit(session, [some(held[0], 0b11), some(held[1], 0b1)])
    first_us = steps.clock.wall
    steps.clock.pass_wall(SECOND_US)
    await steps.commit(session, [some(held[2], 0b111), rest(foreign[0])])
    recent = (await progress(steps, batch)).recent
    assert list(recent) == [Advance(first_us + SECOND_US, 3), Advance(first_us, 3)]


async def test_commits_longer_ago_than_ten_minutes_are_not_recent(steps: Steps) -> None:
    batch = await steps.batch((8,))
    session = await steps.session(lease_s=3600)
    held = await steps.claim(session, batch)
    await steps.commit(session, [some(held[0], 0b1)])
    steps.clock.pass_wall(11 * MINUTE_US)
    assert list((await progress(steps, batch)).recent) == []


async def test_another_workspace_and_a_deleted_batch_have_no_progress(steps: Steps) -> None:
    ended = await steps.finish(await steps.batch())
    assert await steps.store.progress("wrkspc_other", ended.id) is None
    await steps.store.delete_batch(WORKSPACE, ended.id)
    assert await steps.store.progress(WORKSPACE, ended.id) is None


# ---------------------------------------------------------------------------------------------- workers


async def test_a_worker_is_seen_with_its_report_its_chunks_and_the_age_of_its_heartbeat(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session("worker-1", lease_s=10)
    await steps.claim(session, batch)
    troubled = replace(LANE, trouble=UpstreamTrouble.REFUSES_US, text="HTTP 401")
    await steps.store.heartbeat(session.id, [], Report(1, [troubled], put_aside=4, store_trouble="StoreFull"))
    steps.clock.pass_lease(3)
    (seen,) = await steps.store.workers()
    assert (seen.worker, seen.session, seen.held, seen.since_us) == ("worker-1", session.id, 2, steps.clock.wall)
    assert (seen.lanes, seen.put_aside, seen.store_trouble) == ([troubled], 4, "StoreFull")
    assert seen.heartbeat_age_s == 3


async def test_a_worker_that_has_not_reported_yet_is_seen(steps: Steps) -> None:
    await steps.session("quiet")
    (seen,) = await steps.store.workers()
    assert (seen.worker, list(seen.lanes), seen.held) == ("quiet", [], 0)


async def test_a_merge_is_no_worker(steps: Steps) -> None:
    await steps.session(MERGER)
    assert list(await steps.store.workers()) == []


async def test_workers_whose_lease_ran_out_or_whose_boot_is_past_are_not_seen(steps: Steps) -> None:
    await steps.session("late", lease_s=1)
    await steps.session("there", lease_s=100)
    steps.clock.pass_lease(2)
    assert [seen.worker for seen in await steps.store.workers()] == ["there"]
    steps.clock.boot = "boot-2"
    assert list(await steps.store.workers()) == []


# ---------------------------------------------------------------------------------------------- counters


async def test_counters_add_up_what_all_workers_reported_and_outlive_them(steps: Steps) -> None:
    one, two = await steps.session("one"), await steps.session("two")
    tries = Count("tries", ("box", "succeeded"), 5)
    await steps.store.heartbeat(one.id, [], Report(1, added=[tries, Count("retries", (), 1)]))
    await steps.store.heartbeat(two.id, [], Report(1, added=[tries]))
    await steps.store.heartbeat(one.id, [], Report(2, added=[tries]))
    await steps.store.release_worker("one")
    await steps.store.end_session(two.id, Report(2, added=[Count("retries", (), 2)]))
    assert await counters(steps) == {("retries",): 3, ("tries", "box", "succeeded"): 15}


async def test_a_report_that_is_repeated_after_a_lost_answer_counts_once(steps: Steps) -> None:
    session = await steps.session()
    report = Report(7, added=[Count("retries", (), 3)])
    for _ in range(3):
        await steps.store.heartbeat(session.id, [], report)
    for _ in range(2):
        await steps.store.end_session(session.id, replace(report, number=8))
    assert await counters(steps) == {("retries",): 6}


async def test_a_past_session_counts_nothing(steps: Steps) -> None:
    session = await steps.session(lease_s=1)
    steps.clock.pass_lease(2)
    with pytest.raises(SessionPast):
        await steps.store.heartbeat(session.id, [], Report(1, added=[Count("retries", (), 3)]))
    assert await counters(steps) == {}


async def test_results_that_no_worker_made_are_counted_when_their_batch_ends(steps: Steps) -> None:
    canceled, expired = await steps.batch((8, 8)), await steps.batch((5,), window_us=DAY_US)
    await steps.store.cancel_batch(WORKSPACE, canceled.id)
    await steps.store.close_canceling(10)
    steps.clock.pass_wall(2 * DAY_US)
    await steps.store.expire(10)
    await steps.store.expire(10)
    assert (await steps.get(expired)).counts == Counts(expired=5)
    assert await counters(steps) == {("results", "canceled"): 16, ("results", "expired"): 5}


# ---------------------------------------------------------------------------------------------- the whole store


async def test_gauges_show_the_queue_of_all_batches_that_run(steps: Steps) -> None:
    one, two = await steps.batch((8, 8)), await steps.batch((5,), window_us=DAY_US // 2)
    await steps.finish(await steps.batch((3,)))
    await steps.store.cancel_batch(WORKSPACE, two.id)
    session = await steps.session()
    held = await steps.store.claim(session.id, (await steps.keys(one))[:1])
    await steps.commit(session, [some(held[0], 0b11)])
    await steps.store.begin_upload(WORKSPACE, "upload", "requests/upload")
    gauges = await steps.store.gauges()
    assert gauges.batches == {BatchState.IN_PROGRESS: 1, BatchState.CANCELING: 1}
    assert (gauges.open_requests, gauges.leased_requests) == (13, 6)
    assert (gauges.open_chunks, gauges.leased_chunks) == (2, 1)
    assert gauges.next_expiry_us == two.expires_us
    assert (gauges.uploads, gauges.doomed, len(gauges.workers)) == (1, 0, 1)


async def test_gauges_of_an_empty_store_are_zero(steps: Steps) -> None:
    gauges = await steps.store.gauges()
    assert (gauges.batches, gauges.open_requests, gauges.leased_chunks, gauges.next_expiry_us) == ({}, 0, 0, None)
