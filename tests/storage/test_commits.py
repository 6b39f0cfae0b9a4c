"""Commit and the one end: section 3 of the protocol, as directed schedules."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from lowtide.domain.errors import SessionPast
from lowtide.domain.outcomes import Counts, Outcome, Usage
from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Block, Commit, Returned
from lowtide.storage.tables import segment
from support.steps import EACH, WORKSPACE, Steps, rest, some


async def test_a_zombie_commit_is_refused_after_reap_and_claim_by_another(steps: Steps) -> None:
    batch = await steps.batch()
    zombie = await steps.session("zombie")
    (old,) = await steps.claim(zombie, batch)
    await steps.store.release_worker("zombie")
    (new,) = await steps.claim(await steps.session("heir"), batch)
    before = await steps.row(new.key)
    answer = await steps.commit(zombie, [rest(old)])
    assert (answer.accepted, answer.refused, answer.ended) == (frozenset(), {old.key}, [])
    assert await steps.row(new.key) == before


async def test_the_state_alone_is_no_guard(steps: Steps) -> None:
    """The chunk is leased again, by the same session even: only the attempt tells the old part from the new."""
    batch = await steps.batch()
    session = await steps.session()
    (old,) = await steps.claim(session, batch)
    await steps.store.give_back(session.id, [Returned(old.key, old.attempt)])
    (new,) = await steps.claim(session, batch)
    assert (await steps.commit(session, [rest(old)])).refused == {old.key}
    assert (await steps.commit(session, [rest(new)])).accepted == {new.key}


async def test_the_attempt_alone_is_no_guard(steps: Steps) -> None:
    """Reaped and not claimed again: the attempt is still the old one, but the lease is gone."""
    batch = await steps.batch()
    session = await steps.session("zombie")
    (old,) = await steps.claim(session, batch)
    await steps.store.release_worker("zombie")
    assert (await steps.commit(session, [rest(old)])).refused == {old.key}


async def test_bits_that_are_resolved_already_are_refused(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [some(claimed, 0b0011)])
    assert (await steps.commit(session, [some(claimed, 0b0110)])).refused == {claimed.key}
    assert (await steps.row(claimed.key))["resolved"] == 0b0011


async def test_bits_beyond_the_chunk_and_another_batchs_chunk_are_refused(steps: Steps) -> None:
    batch = await steps.batch((3,))
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    assert (await steps.commit(session, [some(claimed, 0b1000)])).refused == {claimed.key}
    assert (await steps.commit(session, [replace(some(claimed, 1), batch_key=99)])).refused == {claimed.key}


async def test_a_refused_part_is_left_out_and_the_others_stand(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    lost, kept = await steps.claim(session, batch)
    await steps.store.give_back(session.id, [Returned(lost.key, lost.attempt)])
    answer = await steps.commit(session, [rest(lost), rest(kept)])
    assert (answer.accepted, answer.refused) == ({kept.key}, {lost.key})
    assert len(await steps.store.blocks(WORKSPACE, batch.id, None, 10)) == 1


async def test_a_commit_of_which_nothing_stands_leaves_no_segment(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [replace(rest(claimed), attempt=7)])
    assert (
        await steps.store._read(lambda conn: conn.execute(select(func.count()).select_from(segment)).scalar_one()) == 0
    )


async def test_a_commit_whose_answer_was_lost_is_repeated_and_finds_itself(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session()
    held = await steps.claim(session, batch)
    stale = replace(rest(held[1]), attempt=9)
    new = steps.segment(session, [rest(held[0]), stale])
    first = await steps.store.commit(new)
    await steps.store.release_worker("worker")
    assert await steps.store.commit(new) == first
    assert first.refused == {held[1].key}


async def test_the_repeat_of_a_commit_that_ended_a_batch_says_so_again_and_moves_nothing(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    new = steps.segment(session, [rest(claimed)])
    first = await steps.store.commit(new)
    ended = await steps.get(batch)
    steps.clock.pass_wall(1000)
    assert await steps.store.commit(new) == first
    assert first.ended == [batch.id]
    assert await steps.get(batch) == ended


async def test_two_last_commits_end_the_batch_once(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    one, other = await steps.session("a"), await steps.session("b")
    first, second = await steps.keys(batch)
    ((left,), (right,)) = await steps.store.claim(one.id, [first]), await steps.store.claim(other.id, [second])
    answers = await asyncio.gather(steps.commit(one, [rest(left)]), steps.commit(other, [rest(right)]))
    assert sorted(len(answer.ended) for answer in answers) == [0, 1]
    assert (await steps.get(batch)).counts == Counts(succeeded=16)


async def test_counts_and_usage_are_written_at_the_end_and_add_up(steps: Steps) -> None:
    batch = await steps.batch((8, 4, 4))
    session = await steps.session()
    one, two, three = await steps.claim(session, batch)
    await steps.commit(session, [some(one, 0b1111), some(two, 0b1111, errored=1)])
    assert (await steps.get(batch)).counts == Counts(processing=16)
    await steps.commit(session, [some(three, 0b0001, closing=Outcome.ERRORED, closing_error=b'{"type":"error"}')])
    (again,) = [it for it in await steps.claim(session, batch) if it.key == one.key]
    await steps.commit(session, [some(again, 0b11110000, errored=4)])
    ended = await steps.get(batch)
    assert ended.state is BatchState.ENDED
    assert ended.counts == Counts(succeeded=8, errored=8)
    assert ended.usage == Usage(*(8 * each for each in (EACH.input_tokens, EACH.output_tokens, 7, 11)))


async def test_errored_requests_are_never_billed(steps: Steps) -> None:
    batch = await steps.batch((4,))
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [some(claimed, 0b1111, errored=4)])
    assert (await steps.get(batch)).usage == Usage()


async def test_a_chunk_closed_as_errored_keeps_its_error_for_the_rest(steps: Steps) -> None:
    batch = await steps.batch((8,))
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [some(claimed, 0b1, closing=Outcome.ERRORED, closing_error='{"é"}'.encode())])
    (closing,) = await steps.store.closings(WORKSPACE, batch.id, 0, 10)
    assert (closing.resolved, closing.outcome, closing.error) == (0b1, Outcome.ERRORED, '{"é"}'.encode())


async def test_a_holder_closes_as_canceled_only_while_its_batch_is_canceling(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    closing = some(claimed, 0b1, closing=Outcome.CANCELED)
    assert (await steps.commit(session, [closing])).refused == {claimed.key}
    await steps.store.cancel_batch(batch.workspace, batch.id)
    assert (await steps.commit(session, [closing])).ended == [batch.id]


async def test_no_holder_closes_as_expired(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    assert (await steps.commit(session, [some(claimed, 0, closing=Outcome.EXPIRED)])).refused == {claimed.key}


async def test_tries_are_kept_at_each_commit(steps: Steps) -> None:
    batch = await steps.batch((3,))
    session = await steps.session("worker")
    (claimed,) = await steps.claim(session, batch)
    await steps.commit(session, [some(claimed, 0, tries=b"\1\2\3")])
    await steps.commit(session, [some(claimed, 0b1)])
    await steps.store.release_worker("worker")
    (again,) = await steps.claim(await steps.session(), batch)
    assert (again.tries, again.resolved, again.losses) == (b"\1\2\3", 0b1, 0)


async def test_one_commit_may_serve_many_batches(steps: Steps) -> None:
    batches = [await steps.batch((4, 2)) for _ in range(3)]
    session = await steps.session()
    held = [it for batch in batches for it in await steps.claim(session, batch)]
    answer = await steps.commit(session, [rest(it) for it in held])
    assert answer.ended == [batch.id for batch in batches]


async def test_a_commit_has_one_part_per_chunk(steps: Steps) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    with pytest.raises(ValueError, match="one part per chunk"):
        await steps.commit(session, [some(claimed, 0b1), some(claimed, 0b10)])


async def test_a_commit_does_not_ask_whether_its_session_lives_but_a_claim_does(steps: Steps) -> None:
    batch = await steps.batch((8, 8))
    session = await steps.session(lease_s=1)
    one, _ = await steps.claim(session, batch)
    steps.clock.pass_lease(5)
    assert (await steps.commit(session, [rest(one)])).accepted == {one.key}
    with pytest.raises(SessionPast):
        await steps.claim(session, batch)


async def test_a_block_with_a_refused_part_gives_only_its_accepted_pieces(steps: Steps) -> None:
    batch = await steps.batch((4, 4, 4, 4))
    session = await steps.session()
    held = await steps.claim(session, batch)
    placed = [replace(rest(it), offset=100 * at, length=100) for at, it in enumerate(held)]
    placed[2] = replace(placed[2], attempt=9)
    blocks = [Block(held[0].batch_key, 0, 250, 10, 1), Block(held[0].batch_key, 250, 50, 2, 2)]
    blocks.append(Block(held[0].batch_key, 300, 100, 4, 3))
    await steps.store.commit(Commit(session.id, 1, f"segments/{session.id}/1", 400, blocks, placed))
    stored = await steps.store.blocks(WORKSPACE, batch.id, None, 10)
    assert [(it.offset, list(it.pieces)) for it in stored] == [(0, [(0, 200)]), (300, [(0, 100)])]


async def test_pieces_around_a_refused_part_stay_apart(steps: Steps) -> None:
    batch = await steps.batch((4, 4, 4))
    session = await steps.session()
    held = await steps.claim(session, batch)
    placed = [replace(rest(it), offset=100 * at, length=100) for at, it in enumerate(held)]
    placed[1] = replace(placed[1], attempt=9)
    block = Block(held[0].batch_key, 0, 300, 12, 1)
    await steps.store.commit(Commit(session.id, 1, f"segments/{session.id}/1", 300, [block], placed))
    (stored,) = await steps.store.blocks(WORKSPACE, batch.id, None, 10)
    assert list(stored.pieces) == [(0, 100), (200, 100)]


async def test_blocks_and_closings_are_pages_in_a_fixed_order(steps: Steps) -> None:
    batch = await steps.batch((4,) * 6)
    session = await steps.session()
    held = await steps.claim(session, batch)
    await steps.commit(session, [rest(it) for it in held[:2]])
    await steps.commit(session, [rest(held[2])])
    await steps.commit(session, [some(it, 0, closing=Outcome.ERRORED, closing_error=b"{}") for it in held[3:]])
    everything = await steps.store.blocks(WORKSPACE, batch.id, None, 10)
    assert len(everything) == 3
    paged = []
    while page := await steps.store.blocks(WORKSPACE, batch.id, paged[-1] if paged else None, 1):
        paged += page
    assert paged == everything
    closings = await steps.store.closings(WORKSPACE, batch.id, held[3].key, 1)
    assert [it.chunk for it in closings] == [held[4].key]
