"""The life of a process: it does its work until it is told to stop, and never goes on with a part of itself dead.

A task that fails or returns before its time ends the process with FAULT, loudly, so that whoever supervises it starts
a new one. SIGTERM, SIGINT, or the end of the lifeline (the pipe whose other end the supervisor holds: it closes when
the supervisor dies, however it dies) ask for a graceful stop.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

import structlog

from lowtide.domain.errors import SettingsError

STOPPED, FAULT, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: told to stop; a fault; a setting or what it names must change first; stopped by force."""

_log = structlog.get_logger()


class EndedEarly(Exception):
    """A task that should run as long as its process has returned."""


Work = Callable[[asyncio.Event], Coroutine[None, None, None]]
"""What runs until the event is set, then finishes gracefully and returns."""


async def until_stopped(works: Mapping[str, Work], stop: asyncio.Event) -> None:
    """Run `works` side by side until `stop` is set and all have returned; raises what ended one of them early."""

    async def guarded(name: str, work: Work) -> None:
        await work(stop)
        if not stop.is_set():
            raise EndedEarly(name)

    async with asyncio.TaskGroup() as tasks:
        for name, work in works.items():
            tasks.create_task(guarded(name, work), name=name)


def _exit_at_once() -> None:
    os._exit(INTERRUPTED)


def stop_on_signals(stop: asyncio.Event, again: Callable[[], None] = _exit_at_once) -> None:
    """Set `stop` at the first SIGTERM or SIGINT; a SIGINT after that calls `again`. SIGHUP is ignored."""

    def told(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            again()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def stop_on_lifeline(stop: asyncio.Event, lifeline: int, orphaned: Callable[[], None]) -> None:
    """Set `stop` when the other end of the pipe `lifeline` closes, after calling `orphaned`."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        with suppress(BlockingIOError):
            if not os.read(lifeline, 4096):
                loop.remove_reader(lifeline)
                _log.warning("process.orphaned")
                orphaned()
                stop.set()

    os.set_blocking(lifeline, False)
    loop.add_reader(lifeline, readable)


def run(main: Coroutine[None, None, int]) -> int:
    """Run a process's coroutine on uvloop and return its exit status, or the one that its error deserves."""
    import uvloop  # noqa: PLC0415 the command line imports this module and must start fast

    try:
        return uvloop.run(main)
    except SettingsError as error:
        sys.stderr.write(f"lowtide: {error}\n")
        return UNUSABLE
    except Exception:  # noqa: BLE001 the process ends here: it says why, whatever it was
        _log.exception("process.failed")
        return FAULT
