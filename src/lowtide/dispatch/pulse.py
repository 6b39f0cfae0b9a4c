"""The pulse of a session: heartbeats that renew every lease, and what a holder learns from them.

Invariant one-clock: the store judges leases; the holder only stops by itself, at the monotonic time before its last
answered heartbeat was sent, plus the lease, less a margin. Until a heartbeat is answered again it sends nothing and gives
up what is in flight; its finished results it still offers, since only a newer attempt refuses them.
"""

import asyncio
import time

import structlog

from lowtide.dispatch.commit import Committer
from lowtide.dispatch.hold import Hold, Holds
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.lanes import Lanes
from lowtide.domain.errors import StoreUnavailable
from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import Pulse, Session

BEATS_PER_LEASE = 4
MARGIN = 0.2
"""The share of a lease that a holder leaves unused."""

log = structlog.get_logger()


class Heart:
    """Keeps one session alive."""

    def __init__(self, session: Session, kit: Kit, lanes: Lanes, holds: Holds, committer: Committer) -> None:
        self._session = session
        self._store = kit.store
        self._lanes = lanes
        self._holds = holds
        self._committer = committer

    async def run(self) -> None:
        """Beat until the session is past, then raise SessionPast."""
        while True:
            await self._beat()
            await asyncio.sleep(self._session.lease_s / BEATS_PER_LEASE)

    async def _beat(self) -> None:
        while True:
            sent_s = time.monotonic()
            try:
                pulse = await self._store.heartbeat(self._session.id, list(self._holds.by_key))
            except StoreUnavailable as error:
                log.warning("heartbeat.failed", session=self._session.id, reason=str(error))
                if time.monotonic() >= self._lanes.lease_until_s:
                    self._give_up_flying()
                await asyncio.sleep(self._session.lease_s / BEATS_PER_LEASE / BEATS_PER_LEASE)
            else:
                self._lanes.lease_until_s = sent_s + self._session.lease_s * (1 - MARGIN)
                self._lanes.wake_all()
                self._learn(pulse)
                return

    def _give_up_flying(self) -> None:
        """The lease may have run out: whoever takes the chunks next must not find the upstream still busy with them."""
        for hold in self._holds.by_key.values():
            for pending in list(hold.flying):
                pending.abort()

    def _learn(self, pulse: Pulse) -> None:
        for key in pulse.lost:
            hold = self._holds.by_key.get(key)
            if hold is not None:
                self._committer.drop(hold)
        canceled = [
            hold
            for hold in self._holds.by_key.values()
            if hold.claimed.batch_key in pulse.canceling and hold.closing is None
        ]
        if canceled:
            self.cancel(canceled)

    def cancel(self, holds: list[Hold]) -> None:
        """Send nothing more of a canceling batch; what was sent finishes and is kept, the rest is closed."""
        self._lanes.withdraw(holds)
        for hold in holds:
            hold.closing = Outcome.CANCELED
            self._holds.wind_up(hold)
        log.info("chunk.canceled", session=self._session.id, chunks=len(holds))
