"""Claim, give back, lose: sections 2 and 6 of the protocol, as directed schedules."""

import pytest

from lowtide.domain.chunks import full_bitmap
from lowtide.domain.errors import SessionPast
from lowtide.domain.limits import LOSSES_MAX
from lowtide.domain.outcomes import Outcome
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US
from lowtide.ports.metadata import Batch, Claimed, Reaped, Returned
from support.steps import Steps, rest, some


async def _lose(steps: Steps, batch: Batch, worker: str = "doomed") -> Claimed:
    """Claim a batch's one chunk and let its worker die."""
    (claimed,) = await steps.claim(await steps.session(worker), batch)
    await steps.store.release_worker(worker)
    return claimed


async def test_a_claim_takes_many_chunks_and_raises_each_attempt(steps: Steps) -> None:
    batch = await steps.batch((8, 3), headers={"anthropic-beta": "x"})
    first, second = await steps.claim(await steps.session(), batch)
    assert (first.attempt, second.attempt) == (1, 1)
    assert (first.size, second.size, second.offset, second.head_checksum) == (8, 3, 1000, -1)
    assert (first.batch_id, first.workspace, first.headers) == (batch.id, batch.workspace, {"anthropic-beta": "x"})
    assert (first.request_key, first.expires_us) == (batch.request_key, batch.expires_us)


async def test_of_two_claims_one_wins_each_chunk(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    keys = await steps.keys(batch)
    one, other = await steps.session("a"), await steps.session("b")
    assert [it.key for it in await steps.store.claim(one.id, keys[:1])] == keys[:1]
    assert [it.key for it in await steps.store.claim(other.id, keys)] == keys[1:]


async def test_a_claim_whose_answer_was_lost_is_repeated_and_finds_what_it_holds(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    assert await steps.claim(session, batch) == await steps.claim(session, batch)


async def test_claims_stop_at_once_when_a_batch_is_canceling(steps: Steps) -> None:
    batch = await steps.batch()
    await steps.store.cancel_batch(batch.workspace, batch.id)
    assert await steps.claim(await steps.session(), batch) == []
    assert await steps.store.backlogs() == []


async def test_giving_back_reopens_without_a_loss_and_keeps_the_tries(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    await steps.store.give_back(session.id, [Returned(claimed.key, claimed.attempt, b"\0\1\2\3\4\5\6\xff")])
    (again,) = await steps.claim(session, batch)
    assert (again.attempt, again.losses, again.tries) == (2, 0, b"\0\1\2\3\4\5\6\xff")


async def test_giving_back_with_a_loss_counts_it_unless_the_chunk_progressed(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    held = await steps.claim(session, batch)
    await steps.commit(session, [some(held[0], 1)])
    await steps.store.give_back(session.id, [Returned(it.key, it.attempt, lost=True) for it in held])
    assert [it.losses for it in await steps.claim(session, batch)] == [0, 1]


async def test_giving_back_needs_the_current_attempt(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (old,) = await steps.claim(session, batch)
    await steps.store.give_back(session.id, [Returned(old.key, old.attempt)])
    (new,) = await steps.claim(session, batch)
    await steps.store.give_back(session.id, [Returned(old.key, old.attempt, lost=True)])
    assert (await steps.row(new.key))["state"] == "leased"


async def test_reaping_counts_a_loss_only_for_chunks_without_progress(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session(lease_s=2)
    held = await steps.claim(session, batch)
    await steps.commit(session, [some(held[0], 0b1)])
    steps.clock.pass_lease(2)
    assert await steps.store.reap() == Reaped(sessions=1, reopened=2, losses=1, closed=0)
    assert [it.losses for it in await steps.claim(await steps.session(), batch)] == [0, 1]


async def test_progress_of_an_earlier_attempt_does_not_excuse_a_later_loss(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session("first")
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [some(claimed, 0b1)])
    await steps.store.release_worker("first")
    await _lose(steps, batch)
    assert (await steps.row(claimed.key))["losses"] == 1


async def test_after_two_losses_a_chunk_is_suspect_and_listed_apart(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    keys = await steps.keys(batch)
    for _ in range(LOSSES_MAX):
        session = await steps.session("doomed")
        await steps.store.claim(session.id, keys[:1])
        await steps.store.release_worker("doomed")
    (backlog,) = await steps.store.backlogs()
    assert (backlog.open, backlog.suspects) == (2, 1)
    ordinary = await steps.store.open_chunks(backlog.batch_key, 0, 10)
    suspects = await steps.store.open_chunks(backlog.batch_key, 0, 10, suspects=True)
    assert ([it.key for it in ordinary], [it.key for it in suspects]) == (keys[1:], keys[:1])


async def test_a_suspect_that_loses_its_lease_has_its_lowest_unresolved_request_condemned(steps: Steps) -> None:
    batch = await steps.batch((4,))
    session = await steps.session("first")
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [some(claimed, 0b0001)])
    await steps.store.end_session(session.id)
    for _ in range(LOSSES_MAX):
        await _lose(steps, batch)
    assert (await _lose(steps, batch)).condemned == 0
    assert (await _lose(steps, batch)).condemned == 0b0010
    (last,) = await steps.claim(await steps.session(), batch)
    assert (last.condemned, last.losses) == (0b0110, LOSSES_MAX)


@pytest.mark.parametrize("size", [1, 31, 32])
async def test_a_chunk_whose_every_request_is_condemned_condemns_no_more(steps: Steps, size: int) -> None:
    batch = await steps.batch((size,))
    for _ in range(LOSSES_MAX + size + 1):
        await _lose(steps, batch)
    (last,) = await steps.claim(await steps.session(), batch)
    assert last.condemned == full_bitmap(size)


async def test_what_would_reopen_a_chunk_of_a_canceling_batch_closes_it_instead(steps: Steps) -> None:
    batch = await steps.batch((8, 8, 8))
    held = []
    for worker in ("returns", "dies", "ends"):
        session = await steps.session(worker)
        held.append((session, (await steps.store.claim(session.id, [(await steps.keys(batch))[len(held)]]))[0]))
    await steps.store.cancel_batch(batch.workspace, batch.id)
    await steps.store.give_back(held[0][0].id, [Returned(held[0][1].key, 1)])
    await steps.store.release_worker("dies")
    assert (await steps.get(batch)).state is BatchState.CANCELING
    await steps.store.end_session(held[2][0].id)
    ended = await steps.get(batch)
    assert (ended.state, ended.counts.canceled) == (BatchState.ENDED, 24)


async def test_one_heartbeat_renews_every_lease_and_tells_what_is_lost_and_canceling(steps: Steps) -> None:
    batch, canceled = await steps.batch(), await steps.batch()
    session = await steps.session(lease_s=2)
    (kept,), (canceling,) = await steps.claim(session, batch), await steps.claim(session, canceled)
    await steps.store.cancel_batch(canceled.workspace, canceled.id)
    for _ in range(3):
        steps.clock.pass_lease(1.9)
        pulse = await steps.store.heartbeat(session.id, [kept.key, canceling.key, 999])
        assert pulse.lost == {999}
        assert pulse.canceling == {canceling.batch_key}
    assert (await steps.store.reap()).sessions == 0


@pytest.mark.parametrize("reapings", [0, 1])
async def test_a_session_that_is_past_is_never_revived(steps: Steps, reapings: int) -> None:
    batch = await steps.batch()
    session = await steps.session(lease_s=2)
    steps.clock.pass_lease(2)
    for _ in range(reapings):
        await steps.store.reap()
    with pytest.raises(SessionPast):
        await steps.store.heartbeat(session.id, [])
    with pytest.raises(SessionPast):
        await steps.claim(session, batch)


async def test_another_boot_voids_every_lease(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session(lease_s=10**6)
    await steps.claim(session, batch)
    steps.clock.boot = "boot-2"
    steps.clock.lease = 0
    with pytest.raises(SessionPast):
        await steps.store.heartbeat(session.id, [])
    assert (await steps.store.reap()).reopened == 1


async def test_time_alone_never_refuses_a_commit(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session(lease_s=2)
    (claimed,) = await steps.claim(session, batch)
    steps.clock.pass_lease(1000)
    assert (await steps.commit(session, [rest(claimed)])).ended == [batch.id]


async def test_wall_time_moves_no_lease(steps: Steps) -> None:
    session = await steps.session(lease_s=2)
    steps.clock.pass_wall(100 * DAY_US)
    assert (await steps.store.reap()).sessions == 0
    await steps.store.heartbeat(session.id, [])


async def test_a_dead_workers_leases_are_released_at_once_and_no_other_workers(steps: Steps) -> None:
    one, other = await steps.batch(), await steps.batch()
    await steps.claim(await steps.session("dead"), one)
    alive = await steps.session("alive")
    await steps.claim(alive, other)
    assert (await steps.store.release_worker("dead")).reopened == 1
    assert (await steps.store.heartbeat(alive.id, await steps.keys(other))).lost == frozenset()


async def test_a_page_of_open_chunks_begins_after_a_key_in_plan_order(steps: Steps) -> None:
    batch = await steps.batch((8,) * 5)
    keys = await steps.keys(batch)
    (backlog,) = await steps.store.backlogs()
    page = await steps.store.open_chunks(backlog.batch_key, keys[1], 2)
    assert [it.key for it in page] == keys[2:4]
    assert keys == sorted(keys)


async def test_a_closing_chunk_leaves_the_backlog(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    one, _ = await steps.claim(session, batch)
    await steps.commit(session, [some(one, 0, closing=Outcome.ERRORED, closing_error=b"{}")])
    await steps.store.end_session(session.id)
    assert [it.open for it in await steps.store.backlogs()] == [1]
