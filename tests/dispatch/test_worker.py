"""The worker as a whole, over a real store: what becomes of requests as an upstream answers, breaks, refuses or dies."""

import asyncio
from collections import Counter

from structlog.testing import capture_logs

from lowtide.domain.outcomes import Counts, Outcome, Usage
from lowtide.ports.metadata import Returned
from lowtide.ports.upstream import Reply, UpstreamBroke, UpstreamUnreachable
from support.batches import custom_id
from support.lab import Lab
from support.running import ScriptedUpstream, ended, message, outcomes, params, problem, working

OK = (Outcome.SUCCEEDED, "ok")


async def good(_: str) -> Reply:
    return message()


def prompts(count: int) -> list[bytes]:
    return [params(f"p{index}") for index in range(count)]


async def test_every_request_runs_once_and_its_usage_is_billed(lab: Lab) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(100, params=prompts(100))
    async with working(lab, upstream):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=100)
    assert done.usage == Usage(input_tokens=300, output_tokens=200)
    assert await outcomes(lab, batch) == {custom_id(index): OK for index in range(100)}
    assert Counter(upstream.prompts) == Counter(f"p{index}" for index in range(100))
    assert upstream.in_flight_most <= upstream.in_flight_max


async def test_in_flight_reaches_the_gate_and_never_passes_it(lab: Lab) -> None:
    full = asyncio.Event()

    async def wait_for_all(_: str) -> Reply:
        if upstream.in_flight == upstream.in_flight_max:
            full.set()
        await full.wait()
        return message()

    upstream = ScriptedUpstream(wait_for_all, in_flight_max=16)
    batch = await lab.batches.create(64, params=prompts(64), chunk_size=8)
    async with working(lab, upstream):
        await ended(lab, batch)
    assert upstream.in_flight_most == 16


async def test_bad_params_are_errored_without_being_sent_and_harm_no_neighbour(lab: Lab) -> None:
    upstream = ScriptedUpstream(good)
    texts = [params("good"), b'{"model":"m"}', params("s", stream=True), b"7", params("z", max_tokens=0)]
    batch = await lab.batches.create(5, params=texts)
    async with working(lab, upstream):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=1, errored=4)
    found = await outcomes(lab, batch)
    assert found[custom_id(0)] == OK
    assert "`stream=True` is not supported in the Message Batches API" in found[custom_id(2)][1]
    assert "max_tokens: must be greater than or equal to 1" in found[custom_id(4)][1]
    assert upstream.prompts == ["good"]


async def test_a_transient_failure_is_tried_again_and_holds_nothing_up(lab: Lab) -> None:
    failed: list[str] = []

    async def fail_once(prompt: str) -> Reply:
        if prompt == "p0" and len(failed) < 2:
            failed.append(prompt)
            return problem(500, "api_error")
        return message()

    batch = await lab.batches.create(20, params=prompts(20))
    async with working(lab, ScriptedUpstream(fail_once)):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=20)
    assert len(failed) == 2


async def test_tries_are_limited_and_the_last_failure_is_the_result(lab: Lab) -> None:
    async def fail_one(prompt: str) -> Reply:
        return problem(500, "api_error", "broken inside") if prompt == "p3" else message()

    upstream = ScriptedUpstream(fail_one)
    batch = await lab.batches.create(10, params=prompts(10))
    async with working(lab, upstream):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=9, errored=1)
    assert (await outcomes(lab, batch))[custom_id(3)] == (Outcome.ERRORED, "api_error: broken inside")
    assert upstream.prompts.count("p3") == 5


async def test_being_busy_uses_up_no_try(lab: Lab) -> None:
    asked: Counter[str] = Counter()

    async def busy_often(prompt: str) -> Reply:
        asked[prompt] += 1
        return problem(529, "overloaded_error") if asked[prompt] < 9 else message()

    batch = await lab.batches.create(4, params=prompts(4))
    async with working(lab, ScriptedUpstream(busy_often)):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=4)


async def test_a_model_is_unknown_once_every_upstream_that_could_have_it_said_so(lab: Lab) -> None:
    async def unknown(_: str) -> Reply:
        return problem(404, "not_found_error", "model: m")

    first, second = ScriptedUpstream(unknown, "first"), ScriptedUpstream(unknown, "second")
    batch = await lab.batches.create(3, params=prompts(3))
    async with working(lab, first, second):
        done = await ended(lab, batch)
    assert done.counts == Counts(errored=3)
    assert set((await outcomes(lab, batch)).values()) == {(Outcome.ERRORED, "not_found_error: model: m")}
    assert sorted(first.prompts) == sorted(second.prompts) == ["p0", "p1", "p2"]


async def test_a_model_that_one_upstream_lacks_runs_on_the_other(lab: Lab) -> None:
    async def unknown(_: str) -> Reply:
        return problem(404, "not_found_error", "model: m")

    batch = await lab.batches.create(20, params=prompts(20))
    async with working(lab, ScriptedUpstream(unknown, "first"), ScriptedUpstream(good, "second")):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=20)


async def test_a_model_that_no_upstream_is_configured_for_is_unknown(lab: Lab) -> None:
    batch = await lab.batches.create(3, params=prompts(3))
    async with working(lab, ScriptedUpstream(good, models_served="other")):
        done = await ended(lab, batch)
    assert done.counts == Counts(errored=3)


async def test_requests_wait_while_an_upstream_is_down_or_refuses_us_and_use_up_no_try(lab: Lab) -> None:
    answers = iter(["unreachable"] * 10 + ["401"] * 10 + ["404"] * 10)

    async def recover(_: str) -> Reply:
        match next(answers, "good"):
            case "unreachable":
                raise UpstreamUnreachable("refused")
            case "401":
                return problem(401, "authentication_error", "invalid x-api-key")
            case "404":
                return Reply(404, {}, b'{"detail":"Not Found"}')
            case _:
                return message()

    batch = await lab.batches.create(40, params=prompts(40))
    async with working(lab, ScriptedUpstream(recover)):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=40)


async def test_when_an_upstream_goes_down_no_try_of_the_neighbours_is_used(lab: Lab) -> None:
    """Every call in flight breaks, eight times over: more than the tries of a request."""
    down = asyncio.Event()
    crashes = 0

    async def crash(_: str) -> Reply:
        nonlocal crashes, down
        if crashes >= 2:
            return message()
        if upstream.in_flight == upstream.in_flight_max or crashes:
            crashes += 1
            down.set()
        await down.wait()
        raise UpstreamBroke("reset")

    upstream = ScriptedUpstream(crash)
    batch = await lab.batches.create(40, params=prompts(40))
    async with working(lab, upstream):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=40)


async def test_the_one_prompt_that_kills_its_upstream_is_errored_and_its_neighbours_succeed(lab: Lab) -> None:
    """Everything in flight breaks whenever the poison is among it."""
    crashed = asyncio.Event()

    async def engine(prompt: str) -> Reply:
        nonlocal crashed
        if prompt == "p5":
            crashed.set()
            crashed = asyncio.Event()
            raise UpstreamBroke("reset")
        try:
            async with asyncio.timeout(0.01):
                await crashed.wait()
        except TimeoutError:
            return message()
        raise UpstreamBroke("reset")

    batch = await lab.batches.create(24, params=prompts(24), chunk_size=8)
    async with working(lab, ScriptedUpstream(engine)):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=23, errored=1)
    assert (await outcomes(lab, batch))[custom_id(5)][0] is Outcome.ERRORED


async def test_suspects_run_one_at_a_time_alone(lab: Lab) -> None:
    batch = await lab.batches.create(16, params=prompts(16), chunk_size=8)
    session = await lab.store.open_session("victim", 60)
    for _ in range(2):
        held = await lab.batches.claim(session, batch, 1)
        await lab.store.give_back(session.id, [Returned(one.key, one.attempt, lost=True) for one in held])
    most: dict[str, int] = {}

    async def watch(prompt: str) -> Reply:
        most[prompt] = upstream.in_flight
        return message()

    upstream = ScriptedUpstream(watch)
    async with working(lab, upstream):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=16)
    assert {most[f"p{index}"] for index in range(8)} == {1}


async def test_the_create_s_headers_go_with_each_request(lab: Lab) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(2, params=prompts(2), headers={"anthropic-beta": "a,b"})
    async with working(lab, upstream):
        await ended(lab, batch)
    assert [dict(each) for each in upstream.headers] == [{"anthropic-beta": "a,b"}] * 2


async def test_a_holder_lets_what_was_sent_of_a_canceled_batch_finish_and_closes_the_rest(lab: Lab) -> None:
    sent, release = asyncio.Event(), asyncio.Event()

    async def slow(_: str) -> Reply:
        sent.set()
        await release.wait()
        return message()

    batch = await lab.batches.create(32, params=prompts(32))
    upstream = ScriptedUpstream(slow, in_flight_max=4)
    with capture_logs() as logs:
        async with working(lab, upstream):
            await sent.wait()
            await lab.store.cancel_batch(batch.workspace, batch.id)
            while not any(entry["event"] == "chunk.canceled" for entry in logs):
                await asyncio.sleep(0.01)
            release.set()
            done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=4, canceled=28)
    assert len(upstream.prompts) == 4


async def test_a_stopping_worker_finishes_what_is_in_flight_and_gives_the_rest_back(lab: Lab) -> None:
    sent, release = asyncio.Event(), asyncio.Event()

    async def slow(_: str) -> Reply:
        sent.set()
        await release.wait()
        return message()

    batch = await lab.batches.create(64, params=prompts(64))
    first = ScriptedUpstream(slow, in_flight_max=4)
    async with working(lab, first) as stop:
        await sent.wait()
        stop.set()
        asyncio.get_running_loop().call_later(0.2, release.set)
    second = ScriptedUpstream(good)
    async with working(lab, second):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=64)
    assert not set(first.prompts) & set(second.prompts)


async def test_a_worker_whose_session_was_reaped_throws_its_work_away_and_begins_again(lab: Lab) -> None:
    sent, release = asyncio.Event(), asyncio.Event()

    async def slow(_: str) -> Reply:
        sent.set()
        await release.wait()
        return message()

    upstream = ScriptedUpstream(slow)
    batch = await lab.batches.create(8, params=prompts(8))
    async with working(lab, upstream, name="paused"):
        await sent.wait()
        await lab.store.release_worker("paused")
        while len(upstream.prompts) < 16:
            await asyncio.sleep(0.01)
        release.set()
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=8)
    assert done.usage == Usage(input_tokens=24, output_tokens=16)


async def test_a_damaged_chunk_is_errored_as_a_whole_and_its_neighbours_run(lab: Lab) -> None:
    batch = await lab.batches.create(16, params=prompts(16), chunk_size=8)
    path = lab.root / batch.request_key
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    async with working(lab, ScriptedUpstream(good)):
        done = await ended(lab, batch)
    assert done.counts == Counts(succeeded=8, errored=8)
    assert len(await outcomes(lab, batch)) == 16


async def test_a_small_batch_does_not_wait_behind_a_big_one(lab: Lab) -> None:
    order: list[str] = []

    async def note(prompt: str) -> Reply:
        order.append(prompt)
        await asyncio.sleep(0)
        return message()

    big = await lab.batches.create(2000, params=[params("big")] * 2000)
    small = await lab.batches.create(8, params=[params("small")] * 8)
    async with working(lab, ScriptedUpstream(note)):
        await ended(lab, small)
        await ended(lab, big)
    assert order.index("small") < 1000
