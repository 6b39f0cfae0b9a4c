"""Creating a batch, on the real store and the real objects: what is accepted stands, what is not leaves nothing."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from lowtide import faults
from lowtide.domain.chunks import decode_requests
from lowtide.domain.errors import InvalidRequest, KeyReused, Overloaded, RateLimited, StoreUnavailable, TooLarge
from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.domain.limits import Limits
from lowtide.intake.create import ClientGone, CreateCall, Intake
from lowtide.intake.splitter import SMALL_BYTES
from lowtide.ports.metadata import Batch
from support.lab import Lab, lab_in
from support.trouble import troubled


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    (tmp_path / "spool").mkdir()
    async with lab_in(tmp_path) as opened:
        yield opened
    assert not list((tmp_path / "spool").iterdir())


def intake_of(lab: Lab, limits: Limits | None = None) -> Intake:
    spool = lab.root.parent / "spool"
    return Intake(
        lab.store, lab.objects, limits or Limits(), spool, concurrent=1, spool_bytes_max=1 << 30, body_idle_s=30
    )


@pytest.fixture
def intake(lab: Lab) -> Intake:
    return intake_of(lab)


def body_of(count: int, text: str = "") -> bytes:
    params = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": text}]}
    return json.dumps({"requests": [{"custom_id": f"r{number}", "params": params} for number in range(count)]}).encode()


def call(
    body: bytes | Iterable[bytes],
    *,
    key: str | None = None,
    retry: int = 0,
    gone: bool = False,
    encoding: str | None = None,
) -> CreateCall:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in [body] if isinstance(body, bytes) else body:
            yield piece

    async def is_gone() -> bool:
        return gone

    headers = {"anthropic-version": "2023-06-01"}
    length = len(body) if isinstance(body, bytes) else None
    return CreateCall(DEFAULT_WORKSPACE, "digest", headers, pieces(), length, encoding, key, retry, is_gone)


async def requests_of(lab: Lab, batch: Batch) -> dict[str, bytes]:
    """Read a batch's requests as a worker would, each once."""
    session = await lab.store.open_session("test", 15)
    (backlog,) = [found for found in await lab.store.backlogs() if found.batch_id == batch.id]
    chunks = await lab.store.open_chunks(backlog.batch_key, 0, 10_000)
    found: dict[str, bytes] = {}
    for claimed in await lab.store.claim(session.id, [chunk.key for chunk in chunks]):
        assert claimed.headers == {"anthropic-version": "2023-06-01"}
        data = await lab.objects.read(claimed.request_key, claimed.offset, claimed.length)
        for request in decode_requests(data, claimed.head_length, claimed.head_checksum, 0):
            assert request.custom_id not in found
            found[request.custom_id] = request.params
    return found


@pytest.mark.parametrize("text", ["", "x" * (SMALL_BYTES // 50)], ids=["split in a thread", "split in a child"])
@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_a_batch_holds_every_request_once(lab: Lab, intake: Intake, text: str, encoding: str | None) -> None:
    body = body_of(100, text)
    created = await intake.create(call(gzip.compress(body) if encoding else body, encoding=encoding))
    assert created.made
    assert created.batch.counts.processing == 100
    params = json.dumps(json.loads(body)["requests"][0]["params"]).encode()
    assert await requests_of(lab, created.batch) == {f"r{number}": params for number in range(100)}


@pytest.mark.parametrize("text", ["", "x" * (2 * SMALL_BYTES)], ids=["split in a thread", "split in a child"])
async def test_a_refused_body_leaves_no_object_and_no_batch(lab: Lab, intake: Intake, text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^requests: custom_id's must be unique"):
        await intake.create(call(body_of(2, text).replace(b"r1", b"r0")))
    assert not lab.keys()
    assert not (await lab.store.list_batches(DEFAULT_WORKSPACE, 10)).batches


async def test_a_declared_length_past_the_limit_is_refused_unread(lab: Lab) -> None:
    large = call(b"x" * 1001)
    with pytest.raises(TooLarge):
        await intake_of(lab, Limits(body_bytes_max=1000)).create(large)
    assert await anext(large.body) == b"x" * 1001


async def test_a_client_that_is_gone_before_the_commit_gets_no_batch(lab: Lab, intake: Intake) -> None:
    with pytest.raises(ClientGone):
        await intake.create(call(body_of(3), gone=True))
    assert not (await lab.store.list_batches(DEFAULT_WORKSPACE, 10)).batches


async def test_the_same_key_and_body_lead_to_the_same_batch(intake: Intake) -> None:
    first = await intake.create(call(body_of(3), key="k"))
    again = await intake.create(call(body_of(3), key="k"))
    assert (again.batch.id, again.made) == (first.batch.id, False)
    with pytest.raises(KeyReused):
        await intake.create(call(body_of(4), key="k"))


async def test_the_same_key_at_the_same_time_makes_one_batch(intake: Intake) -> None:
    made = await asyncio.gather(*(intake.create(call(body_of(3), key="k")) for _ in range(5)))
    assert len({created.batch.id for created in made}) == 1
    assert sum(created.made for created in made) == 1


async def test_a_stock_sdks_retry_finds_its_batch_and_an_equal_create_makes_another(intake: Intake) -> None:
    first = await intake.create(call(body_of(3)))
    retry = await intake.create(call(body_of(3), retry=1))
    other = await intake.create(call(body_of(3)))
    assert (retry.batch.id, retry.made) == (first.batch.id, False)
    assert other.batch.id != first.batch.id


async def test_the_limit_on_queued_requests_is_kept(lab: Lab) -> None:
    intake = intake_of(lab, Limits(queued_requests_max=5))
    await intake.create(call(body_of(3)))
    with pytest.raises(RateLimited):
        await intake.create(call(body_of(3)))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("point", [name for name in faults.registered() if name.startswith("intake.")])
async def test_an_error_at_any_step_leaves_the_spool_empty_and_the_next_create_whole(
    lab: Lab, intake: Intake, point: str, moment: str
) -> None:
    faults.registered()[point].arm(f"error-{moment}")
    with pytest.raises(faults.FaultError):
        await intake.create(call(body_of(3), key="k"))
    created = await intake.create(call(body_of(3), key="k"))
    assert len(await requests_of(lab, created.batch)) == 3
    assert len((await lab.store.list_batches(DEFAULT_WORKSPACE, 10)).batches) == 1


async def test_a_create_whose_answer_the_store_lost_is_repeated_and_makes_one_batch(lab: Lab) -> None:
    seen, _ = troubled(lab, after={"create_batch": [StoreUnavailable("lost")]})
    created = await intake_of(seen).create(call(body_of(3)))
    assert [one.id for one in (await lab.store.list_batches(DEFAULT_WORKSPACE, 10)).batches] == [created.batch.id]
    assert created.made


async def test_a_child_killed_from_outside_is_no_fault_of_the_body(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWTIDE_FAULTS", "intake.child_report=kill-before")
    with pytest.raises(Overloaded):
        await intake.create(call(body_of(3, "x" * SMALL_BYTES)))
    monkeypatch.delenv("LOWTIDE_FAULTS")
    assert (await intake.create(call(body_of(3, "x" * SMALL_BYTES)))).made


async def test_a_cancelled_create_ends_its_child_and_leaves_nothing(lab: Lab, intake: Intake) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b" " * (4 * SMALL_BYTES)
        yield b" "
        reached.set()
        await asyncio.Event().wait()

    whole = call(b"")
    task = asyncio.create_task(
        intake.create(CreateCall(whole.workspace, "digest", {}, endless(), None, None, None, 0, whole.gone))
    )
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while list((lab.root.parent / "spool").iterdir()):
        await asyncio.sleep(0.001)
    assert not lab.keys()


async def test_a_create_cancelled_while_its_child_works_ends_the_child(
    lab: Lab, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWTIDE_FAULTS", "intake.child_report=hang-before")
    task = asyncio.create_task(intake.create(call(body_of(3, "x" * SMALL_BYTES))))
    spool = lab.root.parent / "spool"
    while not list(spool.glob("*.requests")):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while list(spool.iterdir()):
        await asyncio.sleep(0.001)
    assert not (await lab.store.list_batches(DEFAULT_WORKSPACE, 10)).batches
