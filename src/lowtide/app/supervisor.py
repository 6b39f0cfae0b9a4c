"""The child processes of `lowtide serve` and `lowtide run`: started, started again when they die, and stopped in order.

A dead child is followed by a new one at once; one that keeps dying waits longer each time, whatever it died of: the
settings were good when the server started, and what has changed since (a key file that is being replaced) may be
mended. When a worker dies, its leases are released at once instead of running out. Children share nothing with the
supervisor but the listening socket and a pipe, so that either side may be killed at any moment
(`tests/app/test_supervisor.py`).
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from lowtide.app.lifecycle import INTERRUPTED
from lowtide.app.orders import Orders
from lowtide.app.settings import Settings
from lowtide.domain.errors import LowtideError, SettingsError
from lowtide.domain.ids import new_token

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""The wait before a child that died for the nth time in a row is started again; the last is the cap."""
STABLE_S = 60.0
"""A child that lived so long starts the row anew."""
MARGIN_S = 5.0
"""What a stopping child has beyond its own grace, to commit and release, before it is killed."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of child: the module it runs, the descriptors it inherits, how long it may take to stop."""

    kind: str
    module: str
    grace_s: float
    listener: int | None = None
    descriptors: tuple[int, ...] = ()

    def orders(self, name: str, settings: Settings) -> Orders:
        """Return the orders of a child of this role."""
        return Orders(name=name, settings=settings, listener=self.listener, inherited=self.descriptors)


@dataclass
class Backoff:
    """How long to wait before the next start."""

    deaths: int = 0

    def after(self, lived_s: float) -> float:
        """Return the wait after a life of `lived_s`."""
        if lived_s >= STABLE_S:
            self.deaths = 0
        wait_s = BACKOFF_S[min(self.deaths, len(BACKOFF_S) - 1)]
        self.deaths += 1
        return wait_s


@dataclass
class Supervisor:
    """Keeps workers, and what outlasts them, alive until `stop` is set. `deaths` counts the children lost of each kind.

    `stderr` is where children log, their own standard error's descriptor unless given.
    """

    settings: Settings
    release: Callable[[str], Awaitable[object]]
    stop: asyncio.Event
    stderr: int | None = None
    deaths: Counter[str] = field(default_factory=Counter)
    _children: dict[str, Process] = field(default_factory=dict)

    async def run(
        self, lasting: Sequence[Role], workers: Sequence[Role], ready: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Run the roles until told to stop; workers start once `ready` returns. Raises its SettingsError.

        They stop before the lasting ones, so that the API answers polls and an engine finishes replies meanwhile.
        """
        workers_gone = asyncio.Event()
        refusal: SettingsError | None = None
        async with asyncio.TaskGroup() as tasks:
            for role in lasting:
                tasks.create_task(self._keep(role, workers_gone))
            try:
                if ready is not None:
                    await ready()
                await self._run_workers(workers)
            except SettingsError as error:
                refusal = error
            finally:
                self.stop.set()
                workers_gone.set()
        _log.info("supervisor.stopped")
        if refusal is not None:
            raise refusal

    async def _run_workers(self, workers: Sequence[Role]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for role in workers:
                tasks.create_task(self._keep(role, self.stop))
            await self.stop.wait()
            _log.info("supervisor.stopping")

    def kill(self) -> None:
        """End every child and this process at once."""
        for process in self._children.values():
            with suppress(ProcessLookupError):
                process.kill()
        os._exit(INTERRUPTED)

    async def _keep(self, role: Role, stop: asyncio.Event) -> None:
        backoff = Backoff()
        while not stop.is_set():
            name, started_s = f"{role.kind}-{new_token()[:12]}", time.monotonic()
            status = await self._live(role, name, stop)
            if not stop.is_set():
                self.deaths[role.kind] += 1
                wait_s = backoff.after(time.monotonic() - started_s)
                _log.warning("child.died", kind=role.kind, name=name, status=status, again_in_s=wait_s)
                await _pause(wait_s, stop)

    async def _live(self, role: Role, name: str, stop: asyncio.Event) -> int | None:
        """Run one child until it ends, or until it is told to; returns its exit status, None if it never began."""
        try:
            process = await self._start(role, name)
        except OSError as error:
            _log.error("child.not_started", kind=role.kind, error=error.strerror)
            return None
        self._children[name] = process
        ended, told = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await _end(process, role, name)
            return await ended
        finally:
            told.cancel()
            del self._children[name]
            if role.kind == "worker":
                await self._release(name)

    async def _start(self, role: Role, name: str) -> Process:
        """Start a child in a session of its own: a Ctrl-C at the terminal reaches the supervisor alone."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", role.module),
            stdin=asyncio.subprocess.PIPE,
            stderr=self.stderr,
            pass_fds=role.descriptors,
            start_new_session=True,
        )
        assert process.stdin is not None
        with suppress(ConnectionError, RuntimeError):  # killed before it read them; uvloop raises the latter
            process.stdin.write(role.orders(name, self.settings).line())
            await process.stdin.drain()
        _log.info("child.started", kind=role.kind, name=name, pid=process.pid)
        return process

    async def _release(self, worker: str) -> None:
        try:
            await self.release(worker)
        except LowtideError as error:
            _log.warning("child.not_released", name=worker, error=str(error))


async def _end(process: Process, role: Role, name: str) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), role.grace_s + MARGIN_S)
    except TimeoutError:
        _log.warning("child.killed", kind=role.kind, name=name)
        with suppress(ProcessLookupError):
            process.kill()


async def _pause(wait_s: float, stop: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), wait_s)
