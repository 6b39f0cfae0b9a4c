"""A run from its plan to its output: the parts put together, watched, drained, and the results written.

This process makes the batches, keeps upkeep going and shows how far it is; workers and the engine are children of the
same supervisor as under `lowtide serve`. Everything that must survive a kill is in the database, in the objects or in the
manifest before the next step relies on it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lowtide.api.services import Services
from lowtide.app.engine import engine_role, until_loaded
from lowtide.app.lifecycle import INTERRUPTED, stop_on_signals
from lowtide.app.run import manifest as remembered
from lowtide.app.run.job import Job, Order
from lowtide.app.run.manifest import Manifest, Round, Written
from lowtide.app.run.plan import SCRATCH
from lowtide.app.run.reading import LineReader, lines_of
from lowtide.app.run.screen import Screen
from lowtide.app.run.sending import create
from lowtide.app.run.sorting import Sorter, batch_of
from lowtide.app.run.source import Source
from lowtide.app.run.summary import Summary, status_of
from lowtide.app.run.survey import survey
from lowtide.app.run.tally import Tally, Watch
from lowtide.app.run.writing import Follower, as_finished, write_whole
from lowtide.app.settings import Settings
from lowtide.app.supervisor import Role, Supervisor
from lowtide.dispatch.report import TRIES
from lowtide.domain.errors import SettingsError, StoreUnavailable
from lowtide.domain.limits import Limits
from lowtide.domain.outcomes import Outcome, Usage
from lowtide.upkeep.loops import Upkeep

AHEAD_BATCHES: Final = 2
"""Batches that run at once: the next is stored while one is worked on."""
LOOK_S: Final = 0.5


@dataclass
class Drive:
    """One life of a run."""

    job: Job
    settings: Settings
    limits: Limits
    manifest: Manifest
    source: Source
    reader: LineReader
    screen: Screen

    def __post_init__(self) -> None:
        self._begun_s = time.monotonic()
        self._halt = asyncio.Event()
        self._room = asyncio.Event()
        self._refusal: SettingsError | None = None
        self._tally: Tally | None = None

    async def run(self, services: Services, upkeep: Upkeep, log: int) -> int:
        """Run what is left and write the output; returns the status to exit with. Raises SettingsError."""
        if self.manifest.ended:
            again = self.job.retry_failed and await self._add_round(services)
            if not again and (left := self._left()) is not None:
                return left
        if not self.manifest.ended:
            await self._work(services, upkeep, log)
        if not self.manifest.ended:
            return self._interrupted()
        return await self._finish(services)

    # ------------------------------------------------------------------------------------------ what is there already

    def _left(self) -> int | None:
        """Say that nothing is to be done, if so; returns the status then."""
        written, output = self.manifest.written, self.job.output
        if written is None or written.order is not (self.job.order or written.order):
            return None
        if not output.exists():
            self.screen.say(f"{output} is gone; it is written again.")
            return None
        self.screen.say(
            f"This run is finished and {output} holds its results; nothing is done. To begin anew, name another "
            f"--output or remove {output} and {self.job.state}."
        )
        failed = sum(count for name, count in written.outcomes.items() if name != Outcome.SUCCEEDED)
        if failed and not self.job.retry_failed:
            self.screen.say(f"{failed:,} requests did not succeed; --retry-failed runs them again.")
        return status_of(written.outcomes)

    @property
    def _order(self) -> Order:
        written = self.manifest.written
        return self.job.order or (written.order if written else Order.INPUT)

    def _files(self) -> list[Path]:
        return [self._file(one) for one in self.manifest.rounds]

    def _file(self, one: Round) -> Path:
        return self.source.path if one.file is None else self.job.state / one.file

    def _sorter(self, services: Services) -> Sorter:
        return Sorter(services, self.manifest, self.reader, self._files(), self.job.state / SCRATCH)

    async def _add_round(self, services: Services) -> bool:
        """Begin a round of what the last one left without success; returns False if nothing was."""
        last = len(self.manifest.rounds) - 1
        path = self.job.state / f"round-{last + 1}.jsonl"
        lines = lines_of(self._files()[last], self.reader.length_max)
        left = 0
        with path.open("wb") as file:
            async with aclosing(self._sorter(services).ordered(last)) as results:
                async for result in results:
                    line = next(lines)
                    if result.outcome is not Outcome.SUCCEEDED:
                        left += 1
                        file.write(self.reader.read(line).item() + b"\n")
        if not left:
            self.screen.say("Every request succeeded; there is nothing to run again.")
            return False
        found = survey(Source("", path.name, path), self.reader, self.limits, self.job.state / SCRATCH, lambda _: None)
        self.manifest.rounds.append(Round(file=path.name, cuts=found.cuts))
        remembered.save(self.job.state, self.manifest)
        self.screen.say(f"{left:,} requests did not succeed; they run again.")
        return True

    # ------------------------------------------------------------------------------------------ the work

    async def _work(self, services: Services, upkeep: Upkeep, log: int) -> None:
        """Run the last round until it has ended or someone says stop, then drain."""
        stop = asyncio.Event()
        supervisor = Supervisor(self.settings, services.store.release_worker, stop, stderr=log)

        def kill() -> None:
            self.screen.close()
            supervisor.kill()

        stop_on_signals(self._halt, again=kill)
        lasting = [] if self.settings.engine.gguf is None else [engine_role()]
        worker = Role("worker", "lowtide.app.worker_process", self.settings.worker.grace_s)

        async def ready() -> None:
            if lasting:
                await until_loaded(self.settings, supervisor)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._guarded(supervisor.run(lasting, [worker] * self.settings.workers, ready)))
            tasks.create_task(upkeep.run(stop))
            making = tasks.create_task(self._guarded(self._make(services)))
            try:
                await self._watch(services)
                if not self.manifest.ended and self._refusal is None:
                    self.screen.say("Stopping: what is in flight is finished and stored. Ctrl-C again stops at once.")
            finally:
                making.cancel()
                stop.set()
        self.manifest.spent_s += time.monotonic() - self._begun_s
        remembered.save(self.job.state, self.manifest)
        self.screen.close()
        if self._refusal is not None:
            raise self._refusal

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a part of the work; if it is refused, everything stops in order and the refusal is told at the end."""
        try:
            await work
        except SettingsError as refusal:
            self._refusal = refusal
            self._halt.set()

    async def _make(self, services: Services) -> None:
        """Make the batches of the last round, in order, a little ahead of the work."""
        number = len(self.manifest.rounds) - 1
        one = self.manifest.rounds[number]
        ahead = len(one.cuts) if self.job.expires else AHEAD_BATCHES
        for place, cut in enumerate(one.cuts):
            while sum(other.batch is not None and not other.ended for other in one.cuts) >= ahead:
                self._room.clear()
                await self._room.wait()
            if cut.batch is None:
                key = f"{self.manifest.token}-{number}-{place}"
                cut.batch = await create(services, self.reader, self._file(one), cut, key)
                remembered.save(self.job.state, self.manifest)

    async def _watch(self, services: Services) -> None:
        """Show how far the round is until it has ended or is to stop."""
        rounds = self.manifest.rounds
        watch = Watch(services, rounds[-1].cuts)
        follower = None
        if self._order is Order.FINISH and len(rounds) == 1:
            follower = Follower(services, self.job.output, self.job.state, self.manifest)
        try:
            while not self._halt.is_set():
                with suppress(StoreUnavailable):
                    ended = sum(cut.ended for cut in rounds[-1].cuts)
                    self._tally = await watch.look()
                    self.screen.show(self._tally)
                    if sum(cut.ended for cut in rounds[-1].cuts) > ended:
                        self._room.set()
                        remembered.save(self.job.state, self.manifest)
                    if follower is not None:
                        await follower.step()
                    if self.manifest.ended:
                        return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._halt.wait(), LOOK_S)
        finally:
            if follower is not None:
                follower.close()

    # ------------------------------------------------------------------------------------------ the end

    def _interrupted(self) -> int:
        done = (
            "" if self._tally is None else f"{self._tally.done:,} of {self._tally.total:,} requests are done and kept. "
        )
        self.screen.say(f"Stopped. {done}Run the same command again to go on.")
        return INTERRUPTED

    async def _finish(self, services: Services) -> int:
        """Write the output, remember that it is whole, and say what became of the requests."""
        order, summary = self._order, Summary()
        async with aclosing(self._sorter(services).merged()) as results:

            async def lines() -> AsyncGenerator[bytes, None]:
                async for result in results:
                    summary.add(result)
                    yield result.line

            if order is Order.INPUT:
                length = await write_whole(self.job.output, lines())
            else:
                length = await self._write_as_finished(services)
                async for result in results:
                    summary.add(result)
        outcomes = dict(summary.outcomes)
        self.manifest.written = Written(order=order, length=length, outcomes=outcomes)
        remembered.save(self.job.state, self.manifest)
        self.screen.close()
        repeated = await self._repeated(services, summary.outcomes.total())
        print(summary.text(await self._usage(services), self.manifest.spent_s, repeated))  # noqa: T201 its own words
        print(f"Results: {self.job.output}", flush=True)  # noqa: T201 likewise
        if status_of(outcomes):
            self.screen.say("Not every request succeeded; --retry-failed runs the others again.")
        return status_of(outcomes)

    async def _write_as_finished(self, services: Services) -> int:
        """Complete what grew meanwhile; after a second round the output is written anew, without what failed before."""
        if len(self.manifest.rounds) > 1:
            return await write_whole(self.job.output, as_finished(services, self.manifest))
        follower = Follower(services, self.job.output, self.job.state, self.manifest)
        try:
            await follower.step()
        finally:
            length = follower.close()
        return length

    async def _repeated(self, services: Services, requests: int) -> int:
        """Return how many more calls workers told of than there are results. What died with a worker is not told."""
        counters = (await services.live.store.gauges()).counters
        tries = sum(counter.value for counter in counters if counter.name == TRIES)
        return max(0, tries - requests - sum(one.count for one in self.manifest.rounds[1:]))

    async def _usage(self, services: Services) -> Usage:
        usage = Usage()
        for one in self.manifest.rounds:
            for cut in one.cuts:
                usage += (await batch_of(services, cut)).usage
        return usage
