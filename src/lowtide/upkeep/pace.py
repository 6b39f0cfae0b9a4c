"""The pace of one background loop: its step, again at once while there is more, then a jittered wait.

A step is one bounded round of work. Its failure is logged and backed off from, and never leaves the loop: a database
that is away for an hour costs rounds, not the loop. A stop is noticed between steps and in every wait, and a step
in progress is finished, never cut in the middle of a transaction.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger()

_JITTER = 0.1
_BACKOFF_S_MAX = 60.0
_BACKOFF_DOUBLINGS_MAX = 10


async def keep(name: str, step: Callable[[], Awaitable[bool]], interval_s: float, stop: asyncio.Event) -> None:
    """Run `step` until `stop` is set: at once again when it returns True (there is more), else every `interval_s`."""
    failures = 0
    while not stop.is_set():
        more = False
        try:
            more = await step()
            failures = 0
        except Exception as error:  # noqa: BLE001 - whatever one loop meets must not end it or its neighbours
            failures += 1
            _log.warning("upkeep.failed", loop=name, error=type(error).__name__, failures=failures)
        await _wait(0 if more else _pause_s(interval_s, failures), stop)


def _pause_s(interval_s: float, failures: int) -> float:
    """Return the interval, doubled for each failure in a row up to a minute, and jittered to spread processes."""
    backed_off_s = interval_s * 2.0 ** min(failures, _BACKOFF_DOUBLINGS_MAX)
    pause_s = max(interval_s, min(backed_off_s, _BACKOFF_S_MAX))
    return pause_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, guards nothing


async def _wait(pause_s: float, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), pause_s)
