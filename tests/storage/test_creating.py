"""Creating once: section 7 of the protocol, as directed schedules."""

from dataclasses import replace

import pytest

from lowtide.domain.errors import KeyReused, RateLimited, UploadGone
from lowtide.domain.ids import new_id
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US, HOUR_US
from lowtide.ports.metadata import Creation, NewBatch, NewChunk
from support.steps import WORKSPACE, Steps

PLAIN = Creation("credential", "digest", 0, None)
RETRY = replace(PLAIN, retry_count=1)
SECOND_RETRY = replace(PLAIN, retry_count=2)
KEYED = replace(PLAIN, idempotency_key="key")


async def test_a_created_batch_is_all_processing_and_takes_its_uploads_row(steps: Steps) -> None:
    created = await steps.create((8, 3))
    assert created.made
    assert (created.batch.state, created.batch.counts.processing) == (BatchState.IN_PROGRESS, 11)
    assert (created.batch.created_us, created.batch.expires_us) == (steps.clock.wall, steps.clock.wall + DAY_US)
    steps.clock.pass_wall(100 * DAY_US)
    assert await steps.store.purge(0, 10) == 0


async def test_a_create_that_finds_its_upload_gone_fails(steps: Steps) -> None:
    new = NewBatch(new_id("msgbatch"), WORKSPACE, "up", "requests/up", {}, DAY_US, 0, PLAIN)
    with pytest.raises(UploadGone):
        await steps.store.create_batch(new, [NewChunk(0, "m", 0, 1, 1, 1, 8)])
    await steps.store.begin_upload("another", "up", "requests/up")
    with pytest.raises(UploadGone):
        await steps.store.create_batch(new, [NewChunk(0, "m", 0, 1, 1, 1, 8)])
    assert (await steps.store.list_batches(WORKSPACE, 10)).batches == ()


async def test_an_upload_that_upkeep_took_becomes_no_batch(steps: Steps) -> None:
    new = NewBatch(new_id("msgbatch"), WORKSPACE, "up", "requests/up", {}, DAY_US, 0, PLAIN)
    await steps.store.begin_upload(WORKSPACE, "up", "requests/up")
    await steps.store.begin_upload(WORKSPACE, "up", "requests/up")
    await steps.store.abandon_upload(WORKSPACE, "up")
    with pytest.raises(UploadGone):
        await steps.store.create_batch(new, [NewChunk(0, "m", 0, 1, 1, 1, 8)])
    assert await steps.store.purge(0, 10) == 1
    assert [it.key for it in await steps.store.doomed(10)] == ["requests/up"]


async def test_a_create_whose_answer_the_database_lost_is_repeated_and_finds_its_batch(steps: Steps) -> None:
    new = NewBatch(new_id("msgbatch"), WORKSPACE, "up", "requests/up", {}, DAY_US, 0, PLAIN)
    await steps.store.begin_upload(WORKSPACE, "up", "requests/up")
    first = await steps.store.create_batch(new, [NewChunk(0, "m", 0, 1, 1, 1, 8)])
    assert await steps.store.create_batch(new, [NewChunk(0, "m", 0, 1, 1, 1, 8)]) == first


async def test_a_key_with_the_same_body_leads_to_the_same_batch(steps: Steps) -> None:
    first = await steps.create(creation=KEYED)
    again = await steps.create(creation=replace(KEYED, credential="another"))
    assert (again.made, again.batch) == (False, first.batch)
    assert await steps.store.find_creation(WORKSPACE, KEYED) == first.batch


async def test_a_key_with_another_body_is_refused(steps: Steps) -> None:
    await steps.create(creation=KEYED)
    other = replace(KEYED, body_digest="other")
    with pytest.raises(KeyReused):
        await steps.create(creation=other)
    with pytest.raises(KeyReused):
        await steps.store.find_creation(WORKSPACE, other)


async def test_a_key_belongs_to_one_workspace(steps: Steps) -> None:
    await steps.create(creation=KEYED)
    assert (await steps.create(creation=replace(KEYED, body_digest="other"), workspace="another")).made


async def test_a_key_is_kept_as_long_as_the_batch_and_at_least_a_day(steps: Steps) -> None:
    first = await steps.create(creation=KEYED)
    await steps.finish(first.batch)
    await steps.store.delete_batch(WORKSPACE, first.batch.id)
    steps.clock.pass_wall(2 * HOUR_US)
    await steps.store.purge(HOUR_US, 10)
    again = await steps.create(creation=KEYED)
    assert (again.made, again.batch.id, again.batch.state) == (False, first.batch.id, BatchState.DELETED)
    steps.clock.pass_wall(DAY_US)
    await steps.store.purge(HOUR_US, 10)
    assert (await steps.create(creation=KEYED)).made


async def test_two_equal_creates_on_purpose_are_two_batches(steps: Steps) -> None:
    assert (await steps.create(creation=PLAIN)).made
    assert (await steps.create(creation=PLAIN)).made


async def test_the_retry_of_a_create_whose_answer_was_lost_finds_its_batch(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN)
    again = await steps.create(creation=RETRY)
    assert (again.made, again.batch) == (False, first.batch)
    assert (await steps.create(creation=SECOND_RETRY)).batch == first.batch


async def test_find_creation_absorbs_a_retry_as_create_does(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN)
    assert await steps.store.find_creation(WORKSPACE, PLAIN) is None
    assert await steps.store.find_creation(WORKSPACE, RETRY) == first.batch
    assert await steps.store.find_creation(WORKSPACE, RETRY) is None


@pytest.mark.parametrize(
    "other", [replace(RETRY, credential="other"), replace(RETRY, body_digest="other"), replace(RETRY, retry_count=0)]
)
async def test_a_retry_needs_the_same_key_and_body_and_a_count(steps: Steps, other: Creation) -> None:
    await steps.create(creation=PLAIN)
    assert (await steps.create(creation=other)).made


async def test_a_batch_is_absorbed_once_by_each_count(steps: Steps) -> None:
    """Two equal creates, both answers lost: each retry finds a batch of its own."""
    made = [(await steps.create(creation=PLAIN)).batch for _ in range(2)]
    assert [(await steps.create(creation=RETRY)).batch for _ in range(2)] == made
    assert [(await steps.create(creation=SECOND_RETRY)).batch for _ in range(2)] == made
    assert (await steps.create(creation=RETRY)).made


async def test_a_retry_finds_only_a_batch_of_a_lower_count(steps: Steps) -> None:
    assert (await steps.create(creation=SECOND_RETRY)).made
    assert (await steps.create(creation=RETRY)).made
    assert not (await steps.create(creation=replace(PLAIN, retry_count=3))).made


async def test_a_retry_finds_only_a_batch_of_the_last_hour(steps: Steps) -> None:
    await steps.create(creation=PLAIN)
    steps.clock.pass_wall(HOUR_US)
    assert not (await steps.create(creation=RETRY)).made
    steps.clock.pass_wall(1)
    assert (await steps.create(creation=SECOND_RETRY)).made


async def test_a_batch_that_its_credential_named_is_not_absorbed(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN)
    await steps.store.name_batch(WORKSPACE, first.batch.id, PLAIN.credential)
    assert (await steps.create(creation=RETRY)).made


async def test_naming_by_another_credential_or_workspace_changes_nothing(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN)
    await steps.store.name_batch(WORKSPACE, first.batch.id, "other")
    await steps.store.name_batch("other", first.batch.id, PLAIN.credential)
    assert not (await steps.create(creation=RETRY)).made


async def test_of_two_equal_creates_the_second_refused_once_by_429_both_become_batches(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN, queued_requests_max=8)
    with pytest.raises(RateLimited):
        await steps.create(creation=PLAIN, queued_requests_max=8)
    await steps.finish(first.batch)
    second = await steps.create(creation=RETRY, queued_requests_max=8)
    assert second.made
    assert second.batch.id != first.batch.id


async def test_a_create_refused_again_and_again_is_still_a_batch_of_its_own(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN, queued_requests_max=8)
    for refused in (PLAIN, RETRY):
        with pytest.raises(RateLimited):
            await steps.create(creation=refused, queued_requests_max=8)
    await steps.finish(first.batch)
    assert (await steps.create(creation=SECOND_RETRY, queued_requests_max=8)).made


async def test_a_lost_answer_is_found_again_though_the_limit_is_reached(steps: Steps) -> None:
    first = await steps.create(creation=PLAIN, queued_requests_max=8)
    assert (await steps.create(creation=RETRY, queued_requests_max=8)).batch == first.batch


async def test_retries_that_overlap_lead_to_one_batch(steps: Steps) -> None:
    """The first call is slow, its retry comes while it runs: whichever commits first, the other finds it."""
    first = await steps.create(creation=PLAIN)
    late, later = await steps.create(creation=SECOND_RETRY), await steps.create(creation=RETRY)
    assert late.batch == later.batch == first.batch


async def test_the_limit_on_queued_requests_counts_a_workspaces_running_batches(steps: Steps) -> None:
    running = await steps.batch((8,), queued_requests_max=12)
    await steps.batch((4,), queued_requests_max=12)
    await steps.batch((12,), queued_requests_max=12, workspace="another")
    with pytest.raises(RateLimited) as refusal:
        await steps.batch((1,), queued_requests_max=12)
    assert refusal.value.headers["retry-after"]
    await steps.finish(running)
    await steps.batch((8,), queued_requests_max=12)


async def test_a_refused_create_leaves_its_upload_to_be_abandoned(steps: Steps) -> None:
    with pytest.raises(RateLimited):
        await steps.batch((8,), queued_requests_max=7)
    steps.clock.pass_wall(2 * DAY_US)
    assert await steps.store.purge(0, 10) == 1


async def test_a_model_with_a_nul_does_not_become_another_model(steps: Steps) -> None:
    new = NewBatch(new_id("msgbatch"), WORKSPACE, "up", "requests/up", {}, DAY_US, 0, PLAIN)
    await steps.store.begin_upload(WORKSPACE, "up", "requests/up")
    created = await steps.store.create_batch(new, [NewChunk(0, "m\0x", 0, 1, 1, 1, 8)])
    (claimed,) = await steps.claim(await steps.session(), created.batch)
    assert claimed.model == "m\ufffdx"
