"""How far a run is: its live counts, tokens and rate, and what stands in its way, in figures that a screen can show."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lowtide.api.services import Services
from lowtide.api.standing import Reason, standing_still
from lowtide.app.run.manifest import Cut
from lowtide.app.run.sorting import batch_of
from lowtide.domain.errors import ObjectMissing
from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.domain.outcomes import Counts, Usage
from lowtide.domain.states import BatchState

if TYPE_CHECKING:
    from lowtide.ports.live import Progress

RATE_WINDOW_S: Final = 60.0
_NO_NEWS: Final = {Reason.NO_WORKER, Reason.BEHIND_OTHER_BATCHES}
"""A run starts its own workers, and its batches wait for each other."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A run at one moment. `counts.processing` are the requests of the round that have no result yet."""

    counts: Counts
    usage: Usage
    rate_per_s: float | None
    trouble: str | None

    @property
    def total(self) -> int:
        return self.counts.total

    @property
    def done(self) -> int:
        return self.total - self.counts.processing

    @property
    def eta_s(self) -> float | None:
        return self.counts.processing / self.rate_per_s if self.rate_per_s else None


@dataclass
class Rate:
    """Results per second over the last minute, from what was counted at each look."""

    _looks: deque[tuple[float, int]] = field(default_factory=deque)

    def at(self, moment_s: float, done: int) -> float | None:
        """Take note of a count and return the rate, None while it is unknown."""
        looks = self._looks
        looks.append((moment_s, done))
        while len(looks) > 2 and looks[1][0] < moment_s - RATE_WINDOW_S:
            looks.popleft()
        (begin_s, before), (end_s, after) = looks[0], looks[-1]
        return (after - before) / (end_s - begin_s) if end_s > begin_s and after > before else None


class Watch:
    """Looks at the batches of a round."""

    def __init__(self, services: Services, cuts: Sequence[Cut]) -> None:
        self._services = services
        self._cuts = cuts
        self._settled: dict[str, tuple[Counts, Usage]] = {}
        self._running: list[Progress] = []
        self._rate = Rate()

    async def look(self) -> Tally:
        """Return how far the round is, and mark the cuts whose batch has ended."""
        found = [await self._one(cut) for cut in self._cuts]
        processing, succeeded, errored, canceled, expired = (
            sum(getattr(counts, name) for counts, _ in found) for name in Counts.__slots__
        )
        counts = Counts(processing, succeeded, errored, canceled, expired)
        usage = sum((usage for _, usage in found), Usage())
        rate = self._rate.at(time.monotonic(), counts.total - processing)
        return Tally(counts, usage, rate, await self._trouble())

    async def _one(self, cut: Cut) -> tuple[Counts, Usage]:
        if cut.batch is None:
            return Counts(processing=cut.count), Usage()
        if cut.batch not in self._settled:
            if cut.ended:
                batch = await batch_of(self._services, cut)
                self._settled[cut.batch] = batch.counts, batch.usage
                return batch.counts, batch.usage
            progress = await self._services.live.store.progress(DEFAULT_WORKSPACE, cut.batch)
            if progress is None:
                raise ObjectMissing(f"the batch {cut.batch} of this run is gone")
            if progress.batch.state is not BatchState.ENDED:
                self._running.append(progress)
                return progress.counts, progress.usage
            cut.ended = True
            self._settled[cut.batch] = progress.counts, progress.usage
        return self._settled[cut.batch]

    async def _trouble(self) -> str | None:
        """Return why a running batch stands still, unless it only waits for its turn."""
        running, self._running = self._running, []
        if running:
            workers = await self._services.live.store.workers()
            for progress in running:
                standing = standing_still(progress, workers, self._serves)
                if standing is not None and standing.reason not in _NO_NEWS:
                    return standing.text
        return None

    def _serves(self, upstream: str, model: str) -> bool:
        return any(one.name == upstream and one.serves(model) for one in self._services.upstreams)
