"""The pace of a loop: it survives its failures, works on while there is more, and stops at once."""

import asyncio

from structlog.testing import capture_logs

from lowtide.domain.errors import StoreUnavailable
from lowtide.upkeep.pace import keep

NEVER_S = 3600.0


async def test_a_loop_that_fails_is_logged_and_goes_on() -> None:
    stop = asyncio.Event()
    rounds = 0

    async def step() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise StoreUnavailable
        stop.set()
        return False

    with capture_logs() as logs:
        await keep("flaky", step, 0.001, stop)
    assert rounds == 3
    assert [(log["loop"], log["error"], log["failures"]) for log in logs] == [
        ("flaky", "StoreUnavailable", 1),
        ("flaky", "StoreUnavailable", 2),
    ]


async def test_a_loop_works_on_without_a_pause_while_there_is_more() -> None:
    stop = asyncio.Event()
    left = 5

    async def step() -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            stop.set()
        return left > 0

    await keep("busy", step, NEVER_S, stop)
    assert left == 0


async def test_a_stop_ends_the_wait_between_rounds() -> None:
    stop = asyncio.Event()
    ran = asyncio.Event()

    async def step() -> bool:
        ran.set()
        return False

    loop = asyncio.create_task(keep("idle", step, NEVER_S, stop))
    await ran.wait()
    stop.set()
    await loop


async def test_a_stop_lets_the_step_in_progress_finish() -> None:
    stop, begun, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ended = False

    async def step() -> bool:
        nonlocal ended
        begun.set()
        await may_end.wait()
        ended = True
        return True

    loop = asyncio.create_task(keep("long", step, NEVER_S, stop))
    await begun.wait()
    stop.set()
    may_end.set()
    await loop
    assert ended
