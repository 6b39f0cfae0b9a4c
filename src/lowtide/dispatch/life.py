"""The life of one session of a worker: its parts, running side by side until the end, a drain, or SessionPast."""

import asyncio
import contextlib

import structlog

from lowtide.dispatch.commit import Committer
from lowtide.dispatch.feed import Feeder
from lowtide.dispatch.hold import Holds
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.lanes import Lanes
from lowtide.dispatch.pulse import Heart
from lowtide.dispatch.send import Senders
from lowtide.domain.errors import StoreUnavailable
from lowtide.ports.metadata import Session

TICK_S = 0.05
"""How often later tries and open circuits are looked at."""

_log = structlog.get_logger()


class Life:
    """Everything that belongs to one session; nothing of it is used after `run`."""

    def __init__(self, session: Session, kit: Kit) -> None:
        self._session = session
        self._kit = kit
        self._lanes = Lanes(kit.upstreams, kit.settings)
        self._holds = Holds()
        self._senders = Senders(self._lanes, self._holds, kit)
        self._feeder = Feeder(session.id, kit, self._lanes, self._holds)
        self._committer = Committer(session.id, kit, self._lanes, self._holds)
        self._heart = Heart(session, kit, self._lanes, self._holds, self._committer)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain. Raises SessionPast, or what went wrong in any part."""
        feeding = asyncio.create_task(self._feeder.run(), name="feed")
        committing = asyncio.create_task(self._committer.run(), name="commit")
        others = [
            asyncio.create_task(self._heart.run(), name="heart"),
            asyncio.create_task(self._tick(), name="tick"),
            *(
                asyncio.create_task(self._senders.serve(lane), name=f"send.{lane.name}")
                for lane in self._lanes.all.values()
                for _ in range(lane.gate.limit)
            ),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        everything = [feeding, committing, stopping, *others]
        try:
            done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._drain(feeding, committing)
        finally:
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    async def _drain(self, feeding: asyncio.Task[None], committing: asyncio.Task[None]) -> None:
        """Send nothing more, let what is in flight finish for a while, commit, and release the rest."""
        _log.info("session.draining", session=self._session.id, in_flight=self._lanes.in_flight)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        self._lanes.stopped = True
        holds = list(self._holds.by_key.values())
        self._lanes.withdraw(holds)
        for hold in holds:
            hold.returning = True
            self._holds.wind_up(hold)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._kit.settings.grace_s):
                await self._lanes.quiet.wait()
        self._committer.end()
        await committing
        await self._committer.commit()
        with contextlib.suppress(StoreUnavailable):
            await self._kit.store.end_session(self._session.id, self._kit.reporter.report(self._lanes))
        _log.info("session.ended", session=self._session.id)

    async def _tick(self) -> None:
        """Bring back later tries when they are due, and wake senders when an open circuit is."""
        while True:
            self._lanes.release_due()
            self._senders.judge_old_breaks()
            if self._lanes.trouble_left_s() == 0:
                self._lanes.wake_all()
            await asyncio.sleep(TICK_S)
