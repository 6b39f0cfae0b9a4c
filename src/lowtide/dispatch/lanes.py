"""Lanes: the way to each upstream, with its gate, its circuit and the requests that wait for it.

Requests wait in queues by the set of upstreams that may take them; a lane's senders take the oldest of theirs as soon
as gate and circuit let them. Invariant one-failure-is-one: a request that waits for its next try holds nothing up.
"""

import asyncio
import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from lowtide.dispatch.circuit import Circuit
from lowtide.dispatch.gate import Gate
from lowtide.dispatch.hold import Hold, Pending
from lowtide.dispatch.settings import WorkerSettings
from lowtide.ports.upstream import Upstream

ROUTES_MAX = 4096
"""Models come from clients: what is remembered of them is bounded."""
ASIDE_MAX = 256
"""How many requests of one model may wait for a later try before no more of it are claimed: an upstream that sends all
away for an hour would else have a whole batch leased and held in memory."""


class Lane:
    """One upstream as a worker uses it."""

    def __init__(self, upstream: Upstream, settings: WorkerSettings) -> None:
        self.upstream = upstream
        self.gate = Gate(upstream.in_flight_max)
        self.circuit = Circuit(settings.circuit_wait_s, settings.circuit_wait_max_s)
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.flying: set[Pending] = set()
        self.broken: list[Pending] = []
        """Tries whose connection broke and that are not judged yet: their own fault, or the upstream's end?"""
        self.broke_s = 0.0
        """When the first of `broken` broke."""
        self.faults = 0
        """Faulty replies since the last good one."""
        self.low_mark = 1
        """With fewer requests waiting than this, it is time to claim more for this lane."""
        self.full = False
        """Enough wait for it: none are claimed for it alone."""

    @property
    def name(self) -> str:
        return self.upstream.name

    def room(self, now_s: float) -> int:
        """Return how many tries could start now."""
        if self.circuit.trouble is None:
            return self.gate.room
        return int(self.circuit.lets_through(now_s))


class Lanes:
    """All lanes of a worker, and the requests that wait for one."""

    def __init__(self, upstreams: Sequence[Upstream], settings: WorkerSettings) -> None:
        self.all = {upstream.name: Lane(upstream, settings) for upstream in upstreams}
        self.lease_until_s = 0.0
        """Nothing is sent from this monotonic moment on; heartbeats move it."""
        self.stopped = False
        """Nothing is sent any more."""
        self.suspects_rest_until_s = 0.0
        """No suspect is claimed before this monotonic moment: the last one was sent away by a busy upstream."""
        self.in_flight = 0
        self.hungry = asyncio.Event()
        """Set when fewer requests wait for a lane than its `low_mark`: there is room for another claim."""
        self.quiet = asyncio.Event()
        """Set while nothing is in flight."""
        self.quiet.set()
        self._queues: dict[frozenset[str], deque[Pending]] = {}
        self._later: list[tuple[float, int, Pending]] = []
        self._aside: Counter[str] = Counter()
        """How many requests of each model wait for a later try."""
        self._sequence = itertools.count(1)
        self._routes: dict[str, frozenset[str]] = {}

    def route(self, model: str) -> frozenset[str]:
        """Return the names of the upstreams that may have this model."""
        found = self._routes.get(model)
        if found is None:
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            found = frozenset(name for name, lane in self.all.items() if lane.upstream.serves(model))
            self._routes[model] = found
        return found

    def goes(self, model: str) -> bool:
        """Tell whether requests of this model can be worked on now: some lane is open, or none could ever be."""
        route = self.route(model)
        now_s = time.monotonic()
        return not route or any(self.all[name].circuit.lets_through(now_s) for name in route)

    def fetches_urls(self, route: frozenset[str]) -> bool:
        return any(self.all[name].upstream.fetches_urls for name in route)

    def wants(self, model: str) -> bool:
        """Tell whether more requests of this model should be claimed now."""
        route = self.route(model)
        now_s = time.monotonic()
        return not route or (
            self._aside[model] < ASIDE_MAX
            and any(lane.circuit.lets_through(now_s) and not lane.full for lane in map(self.all.__getitem__, route))
        )

    def shortage(self, ahead: int) -> int:
        """Return how many more requests to claim, so that each lane has its free places and `ahead` more waiting.

        Each lane is judged by itself: what waits for a slow one must not keep another from its work.
        """
        now_s = time.monotonic()
        short = 0
        for lane in self.all.values():
            target = lane.room(now_s) + ahead
            waiting = self._waiting(lane)
            lane.low_mark = max(1, target // 2)
            lane.full = waiting >= lane.low_mark
            if not lane.full:
                short += target - waiting
        return short

    def _waiting(self, lane: Lane) -> int:
        return sum(len(queue) for route, queue in self._queues.items() if lane.name in route)

    @property
    def put_aside(self) -> int:
        """How many requests wait for a later try."""
        return len(self._later)

    def trouble_left_s(self) -> float | None:
        """Return the shortest wait of an open circuit, or None when all are closed."""
        now_s = time.monotonic()
        waits = [lane.circuit.wait_left_s(now_s) for lane in self.all.values() if lane.circuit.trouble is not None]
        return min(waits, default=None)

    # ------------------------------------------------------------------------------------------ waiting

    def put(self, pending: Pending, *, first: bool = False) -> None:
        """Let a request wait for one of its lanes, at the end or at the front."""
        if not pending.sequence:
            pending.sequence = next(self._sequence)
        queue = self._queues.get(pending.lanes)
        if queue is None:
            queue = self._queues[pending.lanes] = deque()
        (queue.appendleft if first else queue.append)(pending)
        self.wake(pending.lanes)

    def put_later(self, pending: Pending, wait_s: float) -> None:
        """Let a request wait for `wait_s` before it waits for its lanes again; `release_due` moves it."""
        heapq.heappush(self._later, (time.monotonic() + wait_s, next(self._sequence), pending))
        self._aside[pending.hold.claimed.model] += 1

    def release_due(self) -> float | None:
        """Move what is due to the queues; returns the seconds until the next is due, None when nothing waits."""
        now_s = time.monotonic()
        while self._later and self._later[0][0] <= now_s:
            pending = heapq.heappop(self._later)[2]
            self._aside -= Counter((pending.hold.claimed.model,))
            self.put(pending, first=True)
        return self._later[0][0] - now_s if self._later else None

    def withdraw(self, holds: Iterable[Hold]) -> None:
        """Take every waiting request of these holds out again."""
        gone = set(holds)
        if not gone:
            return
        for route, queue in self._queues.items():
            self._queues[route] = deque(pending for pending in queue if pending.hold not in gone)
        self._later = [entry for entry in self._later if entry[2].hold not in gone]
        heapq.heapify(self._later)
        self._aside = Counter(entry[2].hold.claimed.model for entry in self._later)
        for lane in self.all.values():
            lane.broken = [pending for pending in lane.broken if pending.hold not in gone]
        self.hungry.set()

    # ------------------------------------------------------------------------------------------ senders

    async def next(self, lane: Lane) -> Pending:
        """Return the next request for a sender of this lane, as soon as there is one; it has entered the gate."""
        while (pending := self._take(lane)) is None:
            waiter = asyncio.get_running_loop().create_future()
            lane.waiting.append(waiter)
            await waiter
        return pending

    def _take(self, lane: Lane) -> Pending | None:
        queue = self._oldest(lane.name)
        if queue is None or lane.gate.room <= 0:
            return None
        now_s = time.monotonic()
        if self.stopped or now_s >= self.lease_until_s or not lane.circuit.lets_through(now_s):
            return None
        pending = queue.popleft()
        if self._waiting(lane) < lane.low_mark:
            self.hungry.set()
        lane.gate.enter()
        if not self.in_flight:
            self.quiet.clear()
        self.in_flight += 1
        pending.probe = lane.circuit.started()
        lane.flying.add(pending)
        pending.hold.flying.add(pending)
        pending.started_s = now_s
        return pending

    def _oldest(self, name: str) -> deque[Pending] | None:
        found: deque[Pending] | None = None
        for route, queue in self._queues.items():
            if queue and name in route and (found is None or queue[0].sequence < found[0].sequence):
                found = queue
        return found

    def landed(self, lane: Lane, pending: Pending) -> None:
        """A try is over, whatever came of it."""
        lane.gate.leave()
        lane.flying.discard(pending)
        pending.hold.flying.discard(pending)
        self.in_flight -= 1
        if not self.in_flight:
            self.quiet.set()

    def wake(self, names: Iterable[str]) -> None:
        """Wake one sender of each of these lanes."""
        for name in names:
            waiting = self.all[name].waiting
            while waiting:
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    break

    def wake_all(self) -> None:
        """Wake every sender: a lease was renewed, a circuit closed or came due."""
        for lane in self.all.values():
            while lane.waiting:
                waiter = lane.waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
