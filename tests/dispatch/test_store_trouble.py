"""A worker whose store fails under it: no request is lost, sent twice or left with a session that forgot it."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from lowtide.dispatch.commit import Committer
from lowtide.dispatch.hold import Hold, Holds
from lowtide.dispatch.lanes import Lanes
from lowtide.dispatch.pulse import Heart
from lowtide.domain.errors import StorageError, StoreFull, StoreUnavailable
from lowtide.domain.outcomes import Counts
from lowtide.domain.times import DAY_US
from lowtide.ports.metadata import Pulse, Session
from lowtide.ports.upstream import Reply
from lowtide.storage.local_objects import LocalObjects
from support.lab import Lab
from support.running import ScriptedUpstream, ended, kit_of, message, params, working
from support.trouble import TroubledStore, troubled

OPERATIONS = ["open_session", "heartbeat", "backlogs", "open_chunks", "claim", "commit"]


async def good(_: str) -> Reply:
    return message()


def prompts(count: int) -> list[bytes]:
    return [params(f"p{index}") for index in range(count)]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("error", [StoreFull("full"), StoreUnavailable("locked")], ids=["full", "unavailable"])
async def test_an_operation_that_fails_ends_no_worker_and_repeats_no_call(
    lab: Lab, operation: str, error: Exception
) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(40, params=prompts(40))
    seen, store = troubled(lab, before={operation: [error, error]})
    async with working(seen, upstream):
        done = await ended(lab, batch)
    assert store.before[operation] == []
    assert done.counts == Counts(succeeded=40)
    assert Counter(upstream.prompts) == Counter(f"p{index}" for index in range(40))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_answer_that_is_lost_leaves_nothing_leased_and_repeats_no_call(lab: Lab, operation: str) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(40, params=prompts(40))
    seen, store = troubled(lab, after={operation: [StoreUnavailable("lost")] * 2})
    async with working(seen, upstream):
        done = await ended(lab, batch)
    assert store.after[operation] == []
    assert done.counts == Counts(succeeded=40)
    assert Counter(upstream.prompts) == Counter(f"p{index}" for index in range(40))


class SlowObjects:
    """Real objects whose reads wait until they are let go."""

    def __init__(self, objects: LocalObjects) -> None:
        self._objects = objects
        self.reading, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def read(self, key: str, offset: int, length: int) -> bytes:
        self.reading.set()
        await self.go_on.wait()
        return await self._objects.read(key, offset, length)


async def test_a_batch_canceled_while_its_chunks_are_read_sends_nothing(lab: Lab) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(8, params=prompts(8))
    objects = SlowObjects(lab.objects)
    async with working(replace(lab, objects=objects), upstream):
        await objects.reading.wait()
        await lab.store.cancel_batch(batch.workspace, batch.id)
        done = await ended(lab, batch)
        objects.go_on.set()
        other = await lab.batches.create(8, params=[params("other")] * 8)
        await ended(lab, other)
    assert done.counts == Counts(canceled=8)
    assert set(upstream.prompts) == {"other"}


async def test_a_lease_lost_while_its_chunk_is_read_sends_nothing_of_it(lab: Lab) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(8, params=prompts(8))
    objects = SlowObjects(lab.objects)
    with capture_logs() as logs:
        async with working(replace(lab, objects=objects), upstream):
            await objects.reading.wait()
            lab.clock.turn(DAY_US)
            await lab.store.expire(1)
            while not any(entry["event"] in {"lease.lost", "session.past"} for entry in logs):
                await asyncio.sleep(0.01)
            objects.go_on.set()
            other = await lab.batches.create(8, params=[params("other")] * 8)
            await ended(lab, other)
    assert (await lab.batches.get(batch)).counts == Counts(expired=8)
    assert set(upstream.prompts) == {"other"}


async def test_an_object_store_that_cannot_be_read_for_a_while_costs_no_request(lab: Lab) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(40, params=prompts(40), chunk_size=8)
    objects = TroubledStore(lab.objects, before={"read": [StorageError("input/output error")] * 3})
    async with working(replace(lab, objects=objects), upstream):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=40)
    assert Counter(upstream.prompts) == Counter(f"p{index}" for index in range(40))


async def test_what_a_late_heartbeat_calls_lost_is_not_what_was_claimed_anew_since(lab: Lab) -> None:
    """The answer to a heartbeat comes after its chunk was given back and claimed again by the same session."""
    await lab.batches.create(8, params=prompts(8))
    session = await lab.store.open_session("worker", 60)
    holds = Holds()
    key = (await lab.store.open_chunks((await lab.store.backlogs())[0].batch_key, 0, 1))[0].key

    async def claim() -> Hold:
        (claimed,) = await lab.store.claim(session.id, [key])
        hold = Hold.of(claimed, math.inf)
        holds.add(hold)
        return hold

    class Late(TroubledStore):
        async def heartbeat(self, session_id: str, held: Sequence[int], *report: Any) -> Pulse:
            if old.key in holds.by_key and holds.by_key[old.key] is old:
                await self.store.give_back(session_id, [old.returned()])
                pulse = await self.store.heartbeat(session_id, held, *report)
                holds.remove(old)
                await claim()
                assert pulse.lost == {key}
                return pulse
            return await self.store.heartbeat(session_id, held, *report)

    old = await claim()
    kit = kit_of(replace(lab, store=Late(lab.store)))
    lanes = Lanes(kit.upstreams, kit.settings)
    heart = Heart(session, kit, lanes, holds, Committer(session.id, kit, lanes, holds))
    await heart._beat()
    assert holds.by_key[key].claimed.attempt == old.claimed.attempt + 1


async def test_what_a_session_has_leased_and_does_not_know_of_is_given_back(lab: Lab) -> None:
    """Another task of the worker's own session claims behind its back: heartbeats alone would keep the chunk for ever."""
    release = asyncio.Event()

    async def slow(prompt: str) -> Reply:
        if prompt == "first":
            await release.wait()
        return message()

    first = await lab.batches.create(1, params=[params("first")])
    with capture_logs() as logs:
        async with working(lab, ScriptedUpstream(slow)):
            while not (opened := [entry for entry in logs if entry["event"] == "session.opened"]):
                await asyncio.sleep(0.01)
            stray = await lab.batches.create(1, params=[params("stray")])
            await lab.batches.claim(Session(opened[0]["session"], 2.0), stray)
            done = await ended(lab, stray)
            release.set()
            await ended(lab, first)
    assert done.counts == Counts(succeeded=1)


async def test_a_holder_whose_lease_may_be_over_gives_up_what_is_in_flight_and_sends_nothing_until_it_is_renewed(
    lab: Lab,
) -> None:
    silent, sent, aborted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Silent(TroubledStore):
        async def heartbeat(self, *args: Any) -> Pulse:
            if silent.is_set() and not aborted.is_set():
                raise StoreUnavailable("no answer")
            return await self.store.heartbeat(*args)

    async def hang_once(_: str) -> Reply:
        if aborted.is_set():
            return message()
        sent.set()
        try:
            await asyncio.Event().wait()
        finally:
            aborted.set()
        return message()

    upstream = ScriptedUpstream(hang_once, in_flight_max=2)
    batch = await lab.batches.create(8, params=prompts(8))
    async with working(replace(lab, store=Silent(lab.store)), upstream):
        await sent.wait()
        silent.set()
        await aborted.wait()
        assert len(upstream.prompts) == 2
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=8)
    assert len(upstream.prompts) == 10
