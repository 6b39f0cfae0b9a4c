"""Cancel and expiry: section 4 of the protocol, as directed schedules."""

from lowtide.domain.outcomes import Counts, Outcome
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US
from lowtide.faults import FaultPoint
from lowtide.storage.tables import batch as batch_table
from support.steps import WORKSPACE, Steps, rest, some


async def test_cancel_only_marks_and_is_idempotent(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    first = await steps.store.cancel_batch(WORKSPACE, batch.id)
    assert first is not None
    assert (first.state, first.counts, first.cancel_initiated_us) == (
        BatchState.CANCELING,
        batch.counts,
        steps.clock.wall,
    )
    steps.clock.pass_wall(1000)
    assert await steps.store.cancel_batch(WORKSPACE, batch.id) == first


async def test_upkeep_closes_the_open_chunks_of_a_canceling_batch_in_steps(steps: Steps) -> None:
    batch, untouched = await steps.batch((8,) * 5), await steps.batch()
    await steps.store.cancel_batch(WORKSPACE, batch.id)
    assert [await steps.store.close_canceling(2) for _ in range(4)] == [2, 2, 1, 0]
    ended = await steps.get(batch)
    assert (ended.state, ended.counts, ended.ended_us) == (BatchState.ENDED, Counts(canceled=40), steps.clock.wall)
    assert (await steps.get(untouched)).state is BatchState.IN_PROGRESS


async def test_what_a_holder_had_sent_when_its_batch_was_canceled_is_kept_and_billed(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    (held,) = await steps.store.claim(session.id, (await steps.keys(batch))[:1])
    await steps.store.cancel_batch(WORKSPACE, batch.id)
    await steps.store.close_canceling(10)
    assert (await steps.get(batch)).state is BatchState.CANCELING
    assert (await steps.store.heartbeat(session.id, [held.key])).canceling == {held.batch_key}
    answer = await steps.commit(session, [some(held, 0b111, errored=1, closing=Outcome.CANCELED)])
    ended = await steps.get(batch)
    assert answer.ended == [batch.id]
    assert ended.counts == Counts(succeeded=2, errored=1, canceled=13)
    assert ended.usage.input_tokens == 6


async def test_a_full_chunk_of_a_canceling_batch_has_no_canceled_request(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (held,) = await steps.claim(session, batch)
    await steps.store.cancel_batch(WORKSPACE, batch.id)
    await steps.commit(session, [some(held, 0xFF, closing=Outcome.CANCELED)])
    assert (await steps.get(batch)).counts == Counts(succeeded=8)
    assert await steps.store.closings(WORKSPACE, batch.id, 0, 10) == []


async def test_expiry_fences_every_chunk_and_nothing_arrives_after_it(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session(lease_s=10**6)
    (held,) = await steps.store.claim(session.id, (await steps.keys(batch))[:1])
    await steps.commit(session, [some(held, 0b11)])
    steps.clock.pass_wall(DAY_US)
    assert await steps.store.expire(10) == 1
    ended = await steps.get(batch)
    assert ended.counts == Counts(succeeded=2, expired=14)
    assert (await steps.commit(session, [rest(held)])).refused == {held.key}
    assert (await steps.store.heartbeat(session.id, [held.key])).lost == {held.key}
    assert (await steps.row(held.key))["attempt"] == held.attempt + 1
    assert await steps.get(batch) == ended


async def test_expiry_of_a_canceling_batch_cancels_what_is_left(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    await steps.claim(await steps.session(lease_s=10**6), batch)
    await steps.store.cancel_batch(WORKSPACE, batch.id)
    steps.clock.pass_wall(DAY_US)
    await steps.store.expire(10)
    assert (await steps.get(batch)).counts == Counts(canceled=16)


async def test_expiry_takes_so_many_batches_and_only_those_that_are_due(steps: Steps) -> None:
    due = [await steps.batch(window_us=at) for at in (1, 2, 3)]
    later = await steps.batch()
    steps.clock.pass_wall(10)
    assert [await steps.store.expire(2) for _ in range(3)] == [2, 1, 0]
    assert all([(await steps.get(batch)).state is BatchState.ENDED for batch in due])
    assert (await steps.get(later)).state is BatchState.IN_PROGRESS


async def test_expiry_closes_without_a_row_or_a_line_per_request(steps: Steps) -> None:
    batch = await steps.batch((32,) * 20)
    steps.clock.pass_wall(DAY_US)
    await steps.store.expire(1)
    assert len(await steps.store.closings(WORKSPACE, batch.id, 0, 100)) == 20
    assert await steps.store.blocks(WORKSPACE, batch.id, None, 10) == []


async def test_the_end_check_finds_nothing_but_for_a_fault(steps: Steps) -> None:
    running, ended = await steps.batch(), await steps.batch()
    await steps.finish(ended)
    assert await steps.store.end_check() == 0
    assert (await steps.get(running)).state is BatchState.IN_PROGRESS


async def test_the_end_check_ends_a_batch_whose_chunks_are_all_closed(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    held = await steps.claim(session := await steps.session(), batch)
    await steps.commit(session, [rest(held[0])])
    await steps.store._write(
        FaultPoint("test", "a fault is made"),
        lambda conn, _now: conn.execute(batch_table.update().values(open_chunks=batch_table.c.open_chunks + 1)),
    )
    await steps.commit(session, [rest(held[1])])
    assert (await steps.get(batch)).state is BatchState.IN_PROGRESS
    assert await steps.store.end_check() == 1
    assert (await steps.get(batch)).counts == Counts(succeeded=16)
