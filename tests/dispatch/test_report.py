"""What a worker tells: the store knows, within a heartbeat, what was tried, what came of it and which upstream is down."""

import asyncio

from lowtide.dispatch.lanes import Lanes
from lowtide.dispatch.report import Reporter
from lowtide.domain.outcomes import Counts, Usage
from lowtide.ports.live import WorkerSeen
from lowtide.ports.metadata import Committed, Part
from lowtide.ports.report import Count, UpstreamTrouble
from lowtide.ports.upstream import Reply, UpstreamUnreachable
from support.lab import Lab
from support.running import QUICK, ScriptedUpstream, ended, message, params, problem, working


def prompts(count: int) -> list[bytes]:
    return [params(f"p{index}") for index in range(count)]


async def counters(lab: Lab) -> dict[tuple[str, ...], int]:
    return {(it.name, *it.labels): it.value for it in (await lab.store.gauges()).counters}


async def seen(lab: Lab) -> WorkerSeen:
    """Return the one worker, once it has reported."""
    while True:
        for worker in await lab.store.workers():
            if worker.lanes:
                return worker
        await asyncio.sleep(0.01)


async def trouble_is(lab: Lab, trouble: UpstreamTrouble | None) -> WorkerSeen:
    while (worker := await seen(lab)).lanes[0].trouble is not trouble:
        await asyncio.sleep(0.01)
    return worker


async def test_a_drained_worker_has_told_all_that_it_counted(lab: Lab) -> None:
    failed: list[str] = []

    async def answer(prompt: str) -> Reply:
        if prompt == "p0" and len(failed) < 2:
            failed.append(prompt)
            return problem(500, "api_error")
        return problem(400, "invalid_request_error") if prompt == "p1" else message()

    batch = await lab.batches.create(20, params=prompts(20))
    async with working(lab, ScriptedUpstream(answer, "box")):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=19, errored=1)
    found = await counters(lab)
    assert found.pop(("commit_us",)) > 0
    assert found.pop(("try_us", "box")) > 0
    assert sum(found.pop(key) for key in list(found) if key[0] == "commits") >= 1
    assert found == {
        ("tries", "box", "succeeded"): 19,
        ("tries", "box", "failed"): 1,
        ("tries", "box", "faulty"): 2,
        ("retries",): 2,
        ("results", "succeeded"): 19,
        ("results", "errored"): 1,
        ("tokens", "input"): 57,
        ("tokens", "output"): 38,
    }


async def test_an_upstream_that_is_down_is_told_with_its_reason_and_so_is_its_return(lab: Lab) -> None:
    up = asyncio.Event()

    async def answer(_: str) -> Reply:
        if not up.is_set():
            raise UpstreamUnreachable("connection refused")
        return message()

    batch = await lab.batches.create(4, params=prompts(4))
    async with working(lab, ScriptedUpstream(answer, "box", in_flight_max=4)):
        worker = await trouble_is(lab, UpstreamTrouble.DOWN)
        assert (worker.lanes[0].upstream, worker.lanes[0].limit) == ("box", 4)
        assert worker.lanes[0].text == "connection refused"
        up.set()
        assert (await ended(lab, batch)).counts == Counts(succeeded=4)
        assert (await trouble_is(lab, None)).lanes[0].text == ""


async def test_a_credential_that_is_refused_is_told_as_such(lab: Lab) -> None:
    async def answer(_: str) -> Reply:
        return problem(401, "authentication_error", "bad key")

    await lab.batches.create(1, params=prompts(1))
    async with working(lab, ScriptedUpstream(answer)):
        worker = await trouble_is(lab, UpstreamTrouble.REFUSES_US)
        assert "bad key" in worker.lanes[0].text


async def test_requests_in_flight_and_put_aside_are_told(lab: Lab) -> None:
    go = asyncio.Event()

    async def answer(prompt: str) -> Reply:
        if prompt == "p0" and not go.is_set():
            return problem(529, "overloaded_error", **{"retry-after": "1000"})
        await go.wait()
        return message()

    await lab.batches.create(2, params=prompts(2))
    async with working(lab, ScriptedUpstream(answer)):
        while True:
            worker = await seen(lab)
            if (worker.lanes[0].in_flight, worker.put_aside, worker.held) == (1, 1, 1):
                break
            await asyncio.sleep(0.01)
        go.set()


def test_growth_that_was_not_told_is_told_again_as_it_was() -> None:
    reporter, lanes = Reporter(), Lanes([], QUICK)
    reporter.tried("box", "succeeded", 0.5)
    first = reporter.report(lanes)
    reporter.tried("box", "succeeded", 0.25)
    assert reporter.report(lanes) == first
    reporter.told()
    second = reporter.report(lanes)
    assert second.number > first.number
    assert list(second.added) == [Count("tries", ("box", "succeeded"), 1), Count("try_us", ("box",), 250_000)]


def test_refused_parts_count_as_such_and_their_results_do_not() -> None:
    reporter, lanes = Reporter(), Lanes([], QUICK)
    parts = [Part(key, 1, 1, 0, 10, 0b11, 2, 0, Usage(1, 1)) for key in (1, 2)]
    reporter.committed(parts, [], Committed(frozenset({1}), frozenset({2}), []), took_s=99)
    assert {(it.name, *it.labels): it.value for it in reporter.report(lanes).added} == {
        ("commits", "+Inf"): 1,
        ("commit_us",): 99_000_000,
        ("refused_parts",): 1,
        ("results", "succeeded"): 2,
        ("tokens", "input"): 1,
        ("tokens", "output"): 1,
    }
