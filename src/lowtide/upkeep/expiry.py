"""Ending batches that are out of time, but never those that nobody could work on.

After a start, and after any gap in which this process did not run (a machine asleep, a process stopped), expiry holds
until workers have had `grace_s`: a machine that was off for a day does not expire what it could not try.
"""

import structlog

from lowtide.ports.clock import Clock
from lowtide.ports.metadata import MetadataStore

_log = structlog.get_logger()

_EXPIRE_BATCHES = 8
_ROUNDS_MISSED = 4
"""A gap of so many intervals, and not less than the grace, was no slow round: nothing ran here."""

_SECOND_NS = 1_000_000_000


class Expiry:
    """Expires batches past their window, once the workers have had their grace."""

    def __init__(self, store: MetadataStore, clock: Clock, *, grace_s: float, interval_s: float) -> None:
        self._store = store
        self._clock = clock
        self._grace_ns = int(grace_s * _SECOND_NS)
        self._gap_ns = int(max(grace_s, _ROUNDS_MISSED * interval_s) * _SECOND_NS)
        self._seen_ns: int | None = None
        self._ready_ns = 0

    async def step(self) -> bool:
        if not self._is_ready(self._clock.lease_ns()):
            return False
        ended = await self._store.expire(_EXPIRE_BATCHES)
        self._seen_ns = self._clock.lease_ns()
        if ended:
            _log.info("upkeep.expired", batches=ended)
        return ended >= _EXPIRE_BATCHES

    def _is_ready(self, now_ns: int) -> bool:
        """Begin the grace anew when rounds lie far apart: this clock runs on while the machine sleeps."""
        if self._seen_ns is None or now_ns - self._seen_ns > self._gap_ns:
            self._ready_ns = now_ns + self._grace_ns
        self._seen_ns = now_ns
        return now_ns >= self._ready_ns
