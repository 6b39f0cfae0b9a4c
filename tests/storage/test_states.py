"""Every cell of the state table, and every pair that is not in it, on a real database."""

from itertools import product

import pytest

from lowtide.domain.outcomes import Outcome
from lowtide.domain.states import (
    BATCH_TRANSITIONS,
    BatchEvent,
    BatchState,
    ChunkEvent,
    ChunkState,
    next_batch_state,
    next_chunk_state,
)
from lowtide.domain.times import DAY_US
from lowtide.ports.metadata import Batch, Claimed, Returned, Session
from support.steps import Steps, rest, some

RUNNING = (BatchState.IN_PROGRESS, BatchState.CANCELING)
STANDS = [
    *product(RUNNING, ChunkState),
    *((state, ChunkState.CLOSED) for state in BatchState if state not in RUNNING),
]
"""Where a chunk can stand: an ended batch has only closed chunks."""


async def _stand(steps: Steps, batch: Batch, state: BatchState, chunk: ChunkState) -> tuple[Session, Claimed]:
    """Bring the first chunk of a batch to where it shall stand; return its last holder and what that one claimed."""
    keeper = await steps.session("keeper", 10**6)
    key, other = await steps.keys(batch)
    holder = await steps.session("holder", 10**6)
    (claimed,) = await steps.store.claim(holder.id, [key])
    if state not in RUNNING:
        await steps.store.give_back(holder.id, [Returned(key, claimed.attempt)])
        await steps.bring_to(state, batch)
        return holder, claimed
    await steps.store.claim(keeper.id, [other])
    if chunk is ChunkState.OPEN:
        await steps.store.give_back(holder.id, [Returned(key, claimed.attempt)])
    elif chunk is ChunkState.CLOSED:
        await steps.commit(holder, [rest(claimed)])
    await steps.bring_to(state, batch)
    return holder, claimed


async def _happen(steps: Steps, event: ChunkEvent, holder: Session, claimed: Claimed, batch: BatchState) -> None:
    store = steps.store
    match event:
        case ChunkEvent.CLAIM:
            await store.claim((await steps.session("another")).id, [claimed.key])
        case ChunkEvent.COMMIT_SOME:
            await steps.commit(holder, [some(claimed, 0b11)])
        case ChunkEvent.COMMIT_LAST:
            await steps.commit(holder, [rest(claimed)])
        case ChunkEvent.GIVE_BACK:
            await store.give_back(holder.id, [Returned(claimed.key, claimed.attempt, b"\1" * 8, lost=True)])
        case ChunkEvent.REAP:
            await store.release_worker("holder")
        case ChunkEvent.CLOSE:
            await store.close_canceling(10)
            is_canceling = batch is BatchState.CANCELING
            closing = Outcome.CANCELED if is_canceling else Outcome.ERRORED
            await steps.commit(
                holder, [some(claimed, 0, closing=closing, closing_error=None if is_canceling else b"{}")]
            )
        case ChunkEvent.EXPIRE:
            steps.clock.pass_wall(2 * DAY_US)
            await store.expire(10)


@pytest.mark.parametrize("event", ChunkEvent)
@pytest.mark.parametrize(("state", "chunk"), STANDS)
async def test_a_chunk_goes_where_the_table_says_and_else_nowhere(
    steps: Steps, state: BatchState, chunk: ChunkState, event: ChunkEvent
) -> None:
    batch = await steps.batch((8, 8))
    holder, claimed = await _stand(steps, batch, state, chunk)
    before = await steps.row(claimed.key)
    assert before["state"] == chunk

    await _happen(steps, event, holder, claimed, state)

    after = await steps.row(claimed.key)
    expected = next_chunk_state(state, chunk, event)
    if expected is None:
        assert after == before
    else:
        assert after["state"] == expected
        assert after != before


async def _befall(steps: Steps, event: BatchEvent, batch: Batch) -> None:
    store = steps.store
    match event:
        case BatchEvent.CANCEL:
            await store.cancel_batch(batch.workspace, batch.id)
        case BatchEvent.LAST_CHUNK_CLOSED:
            holder = await steps.session()
            held = await steps.claim(holder, batch)
            await steps.commit(holder, [rest(one) for one in held])
            while await store.close_canceling(10):
                pass
        case BatchEvent.EXPIRE:
            steps.clock.pass_wall(2 * DAY_US)
            await store.expire(10)
        case BatchEvent.RETIRE:
            await store.retire(0, 10)
        case BatchEvent.DELETE:
            await store.delete_batch(batch.workspace, batch.id)


@pytest.mark.parametrize(("state", "event"), list(product(BatchState, BatchEvent)))
async def test_a_batch_goes_where_the_table_says_and_else_nowhere(
    steps: Steps, state: BatchState, event: BatchEvent
) -> None:
    batch = await steps.bring_to(state, await steps.batch((8, 3)))
    assert batch.state is state

    await _befall(steps, event, batch)

    after = await steps.get(batch)
    expected = next_batch_state(state, event)
    assert after.state is (expected or state)
    if expected in {None, state}:
        assert after == batch


def test_every_event_is_in_the_table() -> None:
    assert {transition.event for transition in BATCH_TRANSITIONS} == set(BatchEvent)
