"""What waits for one upstream, one model or one suspect holds up nothing else."""

import asyncio
from dataclasses import replace

from lowtide.dispatch.lanes import ASIDE_MAX
from lowtide.domain.outcomes import Counts
from lowtide.domain.times import HOUR_US
from lowtide.ports.metadata import Batch, Returned
from lowtide.ports.upstream import Reply, UpstreamTimeout
from support.lab import Lab
from support.running import QUICK, ScriptedUpstream, ended, message, params, problem, working


def for_model(model: str, count: int) -> list[bytes]:
    return [params(f"{model}{index}", model=model) for index in range(count)]


async def make_suspect(lab: Lab, batch: Batch) -> None:
    session = await lab.store.open_session("victim", 60)
    for _ in range(2):
        held = await lab.batches.claim(session, batch)
        await lab.store.give_back(session.id, [Returned(one.key, one.attempt, lost=True) for one in held])


async def test_what_waits_for_a_slow_upstream_keeps_no_other_from_its_work(lab: Lab) -> None:
    release = asyncio.Event()

    async def stuck(_: str) -> Reply:
        await release.wait()
        return message()

    async def quick(_: str) -> Reply:
        return message()

    slow = ScriptedUpstream(stuck, "slow", in_flight_max=1, models_served="slow")
    fast = ScriptedUpstream(quick, "fast", in_flight_max=4, models_served="fast")
    waits = await lab.batches.create(400, params=for_model("slow", 400), model="slow", chunk_size=8)
    goes = await lab.batches.create(400, params=for_model("fast", 400), model="fast", chunk_size=8)
    async with working(lab, slow, fast):
        assert (await ended(lab, goes)).counts == Counts(succeeded=400)
        assert len(slow.prompts) == 1
        release.set()
        assert (await ended(lab, waits)).counts == Counts(succeeded=400)


async def test_a_model_that_is_sent_away_for_an_hour_is_not_claimed_as_a_whole(lab: Lab) -> None:
    async def limited(prompt: str) -> Reply:
        if prompt.startswith("busy"):
            return problem(429, "rate_limit_error", **{"retry-after": "3600"})
        return message()

    upstream = ScriptedUpstream(limited)
    await lab.batches.create(2000, params=for_model("busy", 2000), model="busy")
    goes = await lab.batches.create(1500, params=for_model("good", 1500), model="good")
    async with working(lab, upstream):
        assert (await ended(lab, goes)).counts == Counts(succeeded=1500)
    assert len([prompt for prompt in upstream.prompts if prompt.startswith("busy")]) < 2 * ASIDE_MAX


async def test_a_suspect_that_is_sent_away_for_an_hour_holds_nothing_up_and_is_tried_again(lab: Lab) -> None:
    busy = ["suspect0"]

    async def limited(prompt: str) -> Reply:
        if prompt in busy:
            busy.remove(prompt)
            return problem(429, "rate_limit_error", **{"retry-after": "3600"})
        return message()

    suspect = await lab.batches.create(8, params=for_model("suspect", 8), model="suspect")
    await make_suspect(lab, suspect)
    async with working(lab, ScriptedUpstream(limited)):
        while busy:
            await lab.store.changed(0.05)
        other = await lab.batches.create(40, params=for_model("other", 40), model="other")
        assert (await ended(lab, other)).counts == Counts(succeeded=40)
        assert (await ended(lab, suspect)).counts == Counts(succeeded=8)


async def test_a_request_out_of_time_runs_after_all_when_wall_time_is_set_back(lab: Lab) -> None:
    sent, timed_out = asyncio.Event(), asyncio.Event()

    async def hang_once(_: str) -> Reply:
        if not timed_out.is_set():
            sent.set()
            await timed_out.wait()
            raise UpstreamTimeout("no reply")
        return message()

    lab.clock.turn(2 * HOUR_US)
    batch = await lab.batches.create(4, params=for_model("m", 4), window_us=300_000)
    async with working(lab, ScriptedUpstream(hang_once), settings=replace(QUICK, expire_grace_s=0)):
        await sent.wait()
        while lab.clock.wall_us() <= batch.expires_us:
            await asyncio.sleep(0.05)
        lab.clock.turn_wall(-HOUR_US)
        timed_out.set()
        assert (await ended(lab, batch)).counts == Counts(succeeded=4)
