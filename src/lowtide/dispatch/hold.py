"""What a worker has in memory of the chunks it holds, and of their requests on the way.

Owned by one session; nothing here outlives it. Invariants: one-winner (everything a hold commits carries its attempt),
counts-add-up (each request of a hold is unfinished or done, never both).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from lowtide.domain.chunks import full_bitmap
from lowtide.domain.limits import LOSSES_MAX
from lowtide.domain.outcomes import Outcome, Usage
from lowtide.ports.metadata import Claimed, Part, Returned


@dataclass(slots=True, eq=False)
class Pending:
    """A request on its way: of which hold, with which bytes, and the upstreams that may still know its model."""

    hold: "Hold"
    index: int
    custom_id: str
    params: bytes
    lanes: frozenset[str]
    sequence: int = 0
    busy: int = 0
    """How often an upstream was too busy for it; such tries are not limited."""
    started_s: float = 0.0
    probe: bool = False
    """It is the one try that an open circuit let through."""
    sender: asyncio.Task[None] | None = None
    aborted: bool = False
    """We cancelled the sender's call; the sender itself goes on."""

    def abort(self) -> None:
        """Give the running call up, if there is one."""
        if self.sender is not None and not self.aborted:
            self.aborted = True
            self.sender.cancel()


class Fresh(msgspec.Struct, frozen=True):
    """A result that is not yet committed."""

    index: int
    line: bytes
    usage: Usage | None
    """None for an errored result: billed-iff-succeeded."""


@dataclass(slots=True, eq=False)
class Hold:
    """A leased chunk. `unfinished` requests have no result, `fresh` results are not committed yet."""

    claimed: Claimed
    deadline_s: float
    tries: bytearray
    done: int
    """The bitmap of requests with a result, committed or fresh."""
    unfinished: dict[int, Pending] = field(default_factory=dict)
    flying: set[Pending] = field(default_factory=set)
    fresh: list[Fresh] = field(default_factory=list)
    tries_changed: bool = False
    dropped: bool = False
    """The lease is lost: whatever still comes back is thrown away."""
    returning: bool = False
    """To be given back as soon as nothing of it is in flight and its results are committed."""
    lost: bool = False
    """Its upstream went down with some of it: giving it back counts as a loss."""
    closing: Outcome | None = None
    closing_error: bytes | None = None

    @classmethod
    def of(cls, claimed: Claimed, deadline_s: float) -> "Hold":
        tries = bytearray(claimed.tries or bytes(claimed.size))
        return cls(claimed, deadline_s, tries, claimed.resolved)

    @property
    def key(self) -> int:
        return self.claimed.key

    @property
    def suspect(self) -> bool:
        return self.claimed.losses >= LOSSES_MAX

    @property
    def complete(self) -> bool:
        return self.done == full_bitmap(self.claimed.size)

    @property
    def winding_up(self) -> bool:
        """Nothing more of it is to be sent."""
        return self.dropped or self.returning or self.closing is not None

    @property
    def has_news(self) -> bool:
        """There is something to commit."""
        return bool(self.fresh) or self.tries_changed or (self.closing is not None and not self.flying)

    def part(self, taken: list[Fresh], offset: int) -> Part:
        """Return what `taken` adds to a segment at `offset`, and the closing once nothing is in flight."""
        bitmap = length = 0
        for result in taken:
            bitmap |= 1 << result.index
            length += len(result.line)
        usages = [result.usage for result in taken if result.usage is not None]
        return Part(
            chunk=self.key,
            attempt=self.claimed.attempt,
            batch_key=self.claimed.batch_key,
            offset=offset,
            length=length,
            bits=bitmap,
            succeeded=len(usages),
            errored=len(taken) - len(usages),
            usage=sum(usages, Usage()),
            tries=bytes(self.tries),
            closing=None if self.flying else self.closing,
            closing_error=None if self.flying else self.closing_error,
        )

    def returned(self) -> Returned:
        """Return how this hold is given back."""
        return Returned(self.key, self.claimed.attempt, bytes(self.tries), self.lost)


class Holds:
    """Every hold of a session, by chunk key, and how much of each batch is left."""

    def __init__(self) -> None:
        self.by_key: dict[int, Hold] = {}
        self.urgent = asyncio.Event()
        """Set when waiting for the next commit would only delay somebody: the end of a batch, a suspect's result."""
        self.finished = 0
        """Results since the start, for the rate."""
        self._left: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.by_key)

    @property
    def length(self) -> int:
        """The bytes of all held chunks."""
        return sum(hold.claimed.length for hold in self.by_key.values())

    def add(self, hold: Hold) -> None:
        self.by_key[hold.key] = hold

    def expect(self, pending: Pending) -> None:
        """Count a request that is to get a result."""
        pending.hold.unfinished[pending.index] = pending
        self._left[pending.hold.claimed.batch_key] += 1

    def finish(self, hold: Hold, index: int, line: bytes, usage: Usage | None) -> None:
        """Record a result, unless the lease is lost."""
        if hold.dropped:
            return
        hold.fresh.append(Fresh(index, line, usage))
        hold.done |= 1 << index
        self.finished += 1
        if hold.unfinished.pop(index, None) is not None:
            self._less(hold, 1)
        if hold.suspect:
            self.urgent.set()

    def wind_up(self, hold: Hold) -> None:
        """Expect nothing more of a hold but what is in flight; its waiting requests were withdrawn."""
        kept = {pending.index: pending for pending in hold.flying}
        gone = len(hold.unfinished) - len(kept)
        hold.unfinished = kept
        self._less(hold, gone)
        if not hold.flying:
            self.urgent.set()

    def remove(self, hold: Hold) -> None:
        """Forget a hold that is closed, given back or lost."""
        if self.by_key.get(hold.key) is hold:
            del self.by_key[hold.key]
        self._less(hold, len(hold.unfinished))
        hold.unfinished = {}

    def _less(self, hold: Hold, number: int) -> None:
        batch_key = hold.claimed.batch_key
        self._left[batch_key] -= number
        if self._left[batch_key] <= 0:
            del self._left[batch_key]
            self.urgent.set()
