"""The pulse of a session: heartbeats that renew every lease, and what a holder learns from them.

Invariant one-clock: the store judges leases; the holder only stops by itself, at the monotonic time before its last
answered heartbeat was sent, plus the lease, less a margin. Until a heartbeat is answered again it sends nothing and gives
up what is in flight; its finished results it still offers, since only a newer attempt refuses them. With each beat goes
what the worker has to tell (`report`).
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog

from lowtide.dispatch.commit import Committer
from lowtide.dispatch.hold import Hold, Holds
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.lanes import Lanes
from lowtide.domain.errors import StoreUnavailable
from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import Pulse, Returned, Session

BEATS_PER_LEASE = 4
MARGIN = 0.2
"""The share of a lease that a holder leaves unused."""

_log = structlog.get_logger()


class Heart:
    """Keeps one session alive."""

    def __init__(self, session: Session, kit: Kit, lanes: Lanes, holds: Holds, committer: Committer) -> None:
        self._session = session
        self._store = kit.store
        self._reporter = kit.reporter
        self._lanes = lanes
        self._holds = holds
        self._committer = committer
        self._strays: set[tuple[int, int]] = set()
        """Chunks with their attempts that the store said we hold at the last heartbeat, and that we know nothing of."""

    async def run(self) -> None:
        """Beat until the session is past, then raise SessionPast."""
        while True:
            await self._beat()
            await self._rest()

    async def _rest(self) -> None:
        """Wait for the next beat. It comes early when an upstream fell into trouble or got out: people watch."""
        interval_s = self._session.lease_s / BEATS_PER_LEASE
        await asyncio.sleep(interval_s / BEATS_PER_LEASE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_s * (1 - 1 / BEATS_PER_LEASE)):
                await self._reporter.news.wait()
        self._reporter.news.clear()

    async def _beat(self) -> None:
        while True:
            sent_s = time.monotonic()
            held = dict(self._holds.by_key)
            try:
                report = self._reporter.report(self._lanes)
                pulse = await self._store.heartbeat(self._session.id, list(held), report)
            except StoreUnavailable as error:
                _log.warning("heartbeat.failed", session=self._session.id, reason=str(error))
                if time.monotonic() >= self._lanes.lease_until_s:
                    self._give_up_flying()
                await asyncio.sleep(self._session.lease_s / BEATS_PER_LEASE / BEATS_PER_LEASE)
            else:
                self._reporter.told()
                self._lanes.lease_until_s = sent_s + self._session.lease_s * (1 - MARGIN)
                self._lanes.wake_all()
                self._learn(pulse, held)
                await self._give_back_strays(pulse)
                return

    def _give_up_flying(self) -> None:
        """The lease may have run out: whoever takes the chunks next must not find the upstream still busy with them."""
        for hold in self._holds.by_key.values():
            for pending in list(hold.flying):
                pending.abort()

    def _learn(self, pulse: Pulse, held: Mapping[int, Hold]) -> None:
        """Act on what a heartbeat said of `held`; what has been claimed anew since is not what it spoke of."""
        for key in pulse.lost:
            if self._holds.by_key.get(key) is held[key]:
                self._committer.drop(held[key])
        canceled = [
            hold
            for hold in self._holds.by_key.values()
            if hold.claimed.batch_key in pulse.canceling and hold.closing is None
        ]
        if canceled:
            self.cancel(canceled)

    async def _give_back_strays(self, pulse: Pulse) -> None:
        """Give back what two heartbeats in a row found leased to us and unknown here: nobody else can ever have it."""
        found = {stray for stray in pulse.strays.items() if stray[0] not in self._holds.by_key}
        lasting, self._strays = found & self._strays, found
        if not lasting:
            return
        _log.warning("chunk.strayed", session=self._session.id, chunks=len(lasting))
        with contextlib.suppress(StoreUnavailable):
            await self._store.give_back(self._session.id, [Returned(*stray) for stray in lasting])

    def cancel(self, holds: list[Hold]) -> None:
        """Send nothing more of a canceling batch; what was sent finishes and is kept, the rest is closed."""
        self._lanes.withdraw(holds)
        for hold in holds:
            hold.closing = Outcome.CANCELED
            self._holds.wind_up(hold)
        _log.info("chunk.canceled", session=self._session.id, chunks=len(holds))
