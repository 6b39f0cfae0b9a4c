"""What clients see: walls between workspaces, pages in both directions, delete."""

import pytest

from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Page
from support.steps import WORKSPACE, Steps


async def test_a_foreign_id_answers_as_an_unknown_one_does(steps: Steps) -> None:
    batch = await steps.finish(await steps.batch())
    for workspace, batch_id in (("another", batch.id), (WORKSPACE, "msgbatch_unknown")):
        assert await steps.store.get_batch(workspace, batch_id) is None
        assert await steps.store.cancel_batch(workspace, batch_id) is None
        assert await steps.store.delete_batch(workspace, batch_id) is None
        assert await steps.store.list_batches(
            workspace, 10, after_id=batch_id if workspace != WORKSPACE else "x"
        ) == Page((), has_more=False)
    assert await steps.store.get_batch(WORKSPACE, batch.id) == batch


async def test_a_listing_is_newest_first_and_says_whether_more_follow(steps: Steps) -> None:
    ids = [(await steps.batch()).id for _ in range(3)][::-1]
    await steps.batch(workspace="another")
    assert await _ids(steps, 2) == (ids[:2], True)
    assert await _ids(steps, 3) == (ids, False)


async def test_pages_go_on_in_both_directions_and_stay_newest_first(steps: Steps) -> None:
    ids = [(await steps.batch()).id for _ in range(6)][::-1]
    assert await _ids(steps, 2, after_id=ids[1]) == (ids[2:4], True)
    assert await _ids(steps, 2, after_id=ids[3]) == (ids[4:], False)
    assert await _ids(steps, 2, after_id=ids[5]) == ([], False)
    assert await _ids(steps, 2, before_id=ids[4]) == (ids[2:4], True)
    assert await _ids(steps, 2, before_id=ids[2]) == (ids[:2], False)
    assert await _ids(steps, 2, before_id=ids[0]) == ([], False)


async def test_an_unknown_cursor_gives_an_empty_page(steps: Steps) -> None:
    await steps.batch()
    assert await _ids(steps, 2, after_id="msgbatch_x") == ([], False)
    assert await _ids(steps, 2, before_id="msgbatch_x") == ([], False)


async def test_deleted_batches_are_not_listed_but_a_listing_goes_on_after_one(steps: Steps) -> None:
    batches = [await steps.batch() for _ in range(3)][::-1]
    await steps.finish(batches[1])
    await steps.store.delete_batch(WORKSPACE, batches[1].id)
    assert await _ids(steps, 5) == ([batches[0].id, batches[2].id], False)
    assert await _ids(steps, 5, after_id=batches[1].id) == ([batches[2].id], False)


async def test_archived_batches_stay_listed(steps: Steps) -> None:
    batch = await steps.finish(await steps.batch())
    assert await steps.store.retire(0, 10) == 1
    (listed,) = (await steps.store.list_batches(WORKSPACE, 10)).batches
    assert (listed.id, listed.state, listed.archived_us) == (batch.id, BatchState.ARCHIVED, steps.clock.wall)


@pytest.mark.parametrize("state", [BatchState.IN_PROGRESS, BatchState.CANCELING])
async def test_a_batch_that_runs_is_not_deleted(steps: Steps, state: BatchState) -> None:
    batch = await steps.bring_to(state, await steps.batch())
    assert await steps.store.delete_batch(WORKSPACE, batch.id) == batch
    assert await steps.store.get_batch(WORKSPACE, batch.id) == batch


async def test_a_deleted_batch_is_unknown_at_once(steps: Steps) -> None:
    batch = await steps.finish(await steps.batch())
    assert await steps.store.delete_batch(WORKSPACE, batch.id) == batch
    assert await steps.store.get_batch(WORKSPACE, batch.id) is None
    assert await steps.store.cancel_batch(WORKSPACE, batch.id) is None
    assert await steps.store.delete_batch(WORKSPACE, batch.id) is None


async def _ids(steps: Steps, limit: int, **cursor: str) -> tuple[list[str], bool]:
    page = await steps.store.list_batches(WORKSPACE, limit, **cursor)
    return [batch.id for batch in page.batches], page.has_more
