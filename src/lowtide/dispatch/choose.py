"""Choosing which chunks to claim next: by workspace, then batch, then group.

Workspaces go by tokens served, smallest first, newcomers lifted to the present minimum (a virtual token counter, VTC,
arXiv 2401.00588); inside one, batches go likewise by requests claimed, so that a small batch never waits behind a big
one, and whatever is about to run out of time goes first. Inside a batch the order is the plan's. It reads, it never
claims.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lowtide.domain.limits import CHUNK_REQUESTS_MAX
from lowtide.domain.times import SECOND_US
from lowtide.ports.metadata import Backlog, MetadataStore, OpenChunk

PAGE = 512
PAGES_MAX = 8
"""How far into a batch one choice looks for chunks that can go somewhere now."""
COMPETITORS_MAX = 8
"""How many batches share one choice; the others come next."""


@dataclass
class Shares:
    """A counter per name; a name not seen before starts at the minimum of those that compete now."""

    served: dict[str, float] = field(default_factory=dict)

    def enter(self, names: Sequence[str]) -> None:
        known = [self.served[name] for name in names if name in self.served]
        floor = min(known, default=0.0)
        self.served = {name: max(floor, self.served.get(name, floor)) for name in names}

    def add(self, name: str, amount: float) -> None:
        if name in self.served:
            self.served[name] += amount


@dataclass
class _Candidates:
    """The open chunks of one batch, in plan order."""

    backlog: Backlog
    chunks: Iterator[OpenChunk]


class Chooser:
    """Chooses chunks for one worker and remembers who was served."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._workspaces = Shares()
        self._batches = Shares()
        self._tokens_each = 1.0

    def note_served(self, workspace: str, tokens: int) -> None:
        """Count the tokens of a result."""
        self._workspaces.add(workspace, tokens)
        self._tokens_each += 0.01 * (tokens - self._tokens_each)

    async def choose(
        self,
        backlogs: Sequence[Backlog],
        want: int,
        goes: Callable[[str], bool],
        rate: float,
        now_us: int,
        *,
        length_max: int = sys.maxsize,
    ) -> list[int]:
        """Return keys of open chunks holding about `want` requests whose model `goes` somewhere now.

        `rate` is the requests finished per second, by which urgency is judged. They are longer together than
        `length_max` bytes by less than the last of them.
        """
        self._workspaces.enter([backlog.workspace for backlog in backlogs])
        self._batches.enter([backlog.batch_id for backlog in backlogs])
        candidates: list[_Candidates] = []
        for backlog in sorted(backlogs, key=lambda each: self._rank(each, rate, now_us)):
            going = await self._going(backlog, want, goes)
            if going:
                candidates.append(_Candidates(backlog, iter(going)))
            if len(candidates) == COMPETITORS_MAX:
                break
        return self._allot(candidates, want, length_max, lambda each: self._rank(each, rate, now_us))

    def _rank(self, backlog: Backlog, rate: float, now_us: int) -> tuple[float, ...]:
        if _urgent(backlog, rate, now_us):
            return (0, backlog.expires_us)
        return (1, self._workspaces.served[backlog.workspace], self._batches.served[backlog.batch_id])

    async def _going(self, backlog: Backlog, want: int, goes: Callable[[str], bool]) -> list[OpenChunk]:
        """Return open chunks of a batch that can go somewhere, enough for `want` requests."""
        found: list[OpenChunk] = []
        after = 0
        for _ in range(PAGES_MAX):
            page = await self._store.open_chunks(backlog.batch_key, after, PAGE)
            for chunk in page:
                if goes(chunk.model):
                    found.append(chunk)
                    want -= chunk.outstanding
                if want <= 0:
                    return found
            if len(page) < PAGE:
                break
            after = page[-1].key
        return found

    def _allot(
        self, candidates: list[_Candidates], want: int, length_max: int, rank: Callable[[Backlog], tuple[float, ...]]
    ) -> list[int]:
        """Take chunk by chunk from whoever stands first, charging each what it takes."""
        chosen: list[int] = []
        while want > 0 and length_max > 0 and candidates:
            first = min(candidates, key=lambda each: rank(each.backlog))
            chunk = next(first.chunks, None)
            if chunk is None:
                candidates.remove(first)
                continue
            chosen.append(chunk.key)
            want -= chunk.outstanding
            length_max -= chunk.length
            self._batches.add(first.backlog.batch_id, chunk.outstanding)
            self._workspaces.add(first.backlog.workspace, chunk.outstanding * self._tokens_each)
        return chosen


def _urgent(backlog: Backlog, rate: float, now_us: int) -> bool:
    """Tell whether less than twice the estimated remaining time is left."""
    if rate <= 0:
        return False
    remaining_us = backlog.open * CHUNK_REQUESTS_MAX / rate * SECOND_US
    return backlog.expires_us - now_us < 2 * remaining_us
