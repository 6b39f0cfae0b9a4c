"""n-in-n-out and counts-add-up, as the reader keeps them: each accepted request has one line, of its outcome."""

from collections.abc import Awaitable, Callable

import pytest

from lowtide.domain.errors import ErrorType
from lowtide.domain.lines import error_result
from lowtide.domain.outcomes import Outcome, Usage
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US, SECOND_US
from lowtide.ports.metadata import Batch, Commit, Part, Returned
from support.batches import custom_id
from support.lab import Lab
from support.reading import counts_of, outcomes_by_id, results_of


def _every_fifth(position: int) -> bool:
    return position % 5 == 0


async def _run_some(lab: Lab, batch: Batch) -> None:
    """Resolve half of the first chunk and all of the second, and give back what is left."""
    session = await lab.store.open_session("some", 15)
    first, second, *rest = await lab.batches.claim(session, batch, limit=4)
    found = [lab.batches.outcomes(first, _every_fifth, indexes=range(3, 19)), lab.batches.outcomes(second)]
    await lab.batches.commit(session, 0, found)
    await lab.store.give_back(session.id, [Returned(one.key, one.attempt) for one in (first, *rest)])
    await lab.store.end_session(session.id)


async def _cancel(lab: Lab, batch: Batch) -> None:
    await lab.store.cancel_batch(batch.workspace, batch.id)
    while await lab.store.close_canceling(3):
        pass


async def _expire(lab: Lab, batch: Batch) -> None:
    lab.clock.turn(DAY_US + SECOND_US)
    assert await lab.store.expire(8) == 1


async def test_a_batch_that_ran_has_a_line_for_each_request_and_counts_that_equal_them(lab: Lab) -> None:
    batch = await lab.batches.create(500)
    ended = await lab.batches.run(batch, is_errored=_every_fifth, each=3)
    data = await results_of(lab, batch)
    assert ended.state is BatchState.ENDED
    assert outcomes_by_id(data) == {
        custom_id(index): "errored" if _every_fifth(index) else "succeeded" for index in range(500)
    }
    assert counts_of(data) == ended.counts


@pytest.mark.parametrize(("end", "outcome"), [(_cancel, "canceled"), (_expire, "expired")])
async def test_requests_that_never_ran_have_lines_derived_from_their_heads(
    lab: Lab, end: Callable[[Lab, Batch], Awaitable[None]], outcome: str
) -> None:
    batch = await lab.batches.create(300, chunk_size=31)
    await _run_some(lab, batch)
    await end(lab, batch)
    ended = await lab.batches.get(batch)
    data = await results_of(lab, batch)
    expected = {custom_id(index): outcome for index in range(300)}
    expected |= {custom_id(index): "succeeded" for index in (*range(3, 19), *range(31, 62))}
    expected |= {custom_id(index): "errored" for index in (5, 10, 15)}
    assert ended.state is BatchState.ENDED
    assert outcomes_by_id(data) == expected
    assert counts_of(data) == ended.counts


async def test_a_chunk_errored_as_a_whole_has_its_error_on_each_derived_line(lab: Lab) -> None:
    batch = await lab.batches.create(40)
    session = await lab.store.open_session("w", 15)
    held = await lab.batches.claim(session, batch)
    error = error_result(ErrorType.API, "No upstream took it", None)
    closings = [
        Part(one.key, one.attempt, one.batch_key, 0, 0, 0, 0, 0, Usage(), closing=Outcome.ERRORED, closing_error=error)
        for one in held
    ]
    await lab.store.commit(Commit(session.id, 0, f"segments/{session.id}/0", 0, [], closings))
    data = await results_of(lab, batch)
    assert set(outcomes_by_id(data).values()) == {"errored"}
    assert data.count(error) == 40
    assert counts_of(data) == (await lab.batches.get(batch)).counts


async def test_a_part_that_the_commit_refused_is_left_out_of_the_results(lab: Lab) -> None:
    batch = await lab.batches.create(96)
    late, quick = [await lab.store.open_session(name, 15) for name in ("late", "quick")]
    held = await lab.batches.claim(late, batch)
    lost = held[1]
    await lab.store.give_back(late.id, [Returned(lost.key, lost.attempt)])
    (again,) = await lab.batches.claim(quick, batch)
    committed = await lab.batches.commit(late, 0, [lab.batches.outcomes(one, lambda _: True) for one in held])
    assert committed.refused == {lost.key}
    await lab.batches.commit(quick, 0, [lab.batches.outcomes(again)])
    found = outcomes_by_id(await results_of(lab, batch))
    assert found == {custom_id(index): "succeeded" if 32 <= index < 64 else "errored" for index in range(96)}


async def test_batches_that_share_segments_see_their_own_lines_alone(lab: Lab) -> None:
    sizes = (50, 70, 90)
    batches = [await lab.batches.create(size) for size in sizes]
    session = await lab.store.open_session("w", 15)
    held = [await lab.batches.claim(session, batch) for batch in batches]
    for number in range(2):
        half = [chunk for chunks in held for chunk in chunks[number::2]]
        await lab.batches.commit(session, number, [lab.batches.outcomes(chunk) for chunk in half])
    for size, batch in zip(sizes, batches, strict=True):
        found = outcomes_by_id(await results_of(lab, batch))
        assert set(found) == {custom_id(index) for index in range(size)}
