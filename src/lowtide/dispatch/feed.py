"""Feeding: keeping about a second's worth of unsent work leased, no more.

Chooses, claims, reads the claimed chunks by range, checks each request's params and lets the good ones wait for a lane.
Suspect chunks (`docs/semantics.md`, "A request that ends what runs it") are run one at a time while nothing else is
held, so that the one request that ends a worker or its upstream can be told from its neighbours.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from lowtide.dispatch.check import Refusal, check_params
from lowtide.dispatch.hold import Hold, Holds, Pending
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.lanes import Lanes
from lowtide.dispatch.send import refusal_line
from lowtide.domain.chunks import Request, bits, decode_requests
from lowtide.domain.errors import ErrorType, ObjectDamaged, ObjectMissing, StorageError, StoreUnavailable
from lowtide.domain.keys import allows
from lowtide.domain.lines import error_result
from lowtide.domain.outcomes import Outcome
from lowtide.domain.times import SECOND_US
from lowtide.faults import point
from lowtide.ports.metadata import Backlog, Claimed

READ_LENGTH_MAX = 8 * 1024 * 1024
"""Neighbouring chunks are read together up to this length."""
CLAIM_CHUNKS_MAX = 512
AHEAD_MIN = 8
CONDEMNED = "The request was given up: it repeatedly ended the process that ran it"
DAMAGED = "The stored request is damaged"
PROFILE_HEADER = "anthropic-user-profile-id"

FED = point("dispatch.feed", "claimed chunks are read and their requests wait for a lane")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Terms:
    """What the requests of one chunk, all of one model, have in common."""

    route: frozenset[str]
    fetches_urls: bool
    profile: str | None
    allowed: bool


class Feeder:
    """Claims chunks for a session and feeds their requests to the lanes."""

    def __init__(self, session: str, kit: Kit, lanes: Lanes, holds: Holds) -> None:
        self._session = session
        self._store = kit.store
        self._objects = kit.objects
        self._settings = kit.settings
        self._chooser = kit.chooser
        self._clock = kit.clock
        self._lanes = lanes
        self._holds = holds
        self._grace_until_us = kit.clock.wall_us() + int(kit.settings.expire_grace_s * SECOND_US)
        self._suspects_since_s: float | None = None
        self._rate = 0.0
        self._rated_s = time.monotonic()
        self._rated_finished = 0

    async def run(self) -> None:
        """Feed for ever."""
        while True:
            self._lanes.hungry.clear()
            want = self._want()
            if want <= 0:
                await self._rest(self._lanes.hungry)
                continue
            try:
                fed = await self._round(want)
            except StoreUnavailable as error:
                _log.warning("feed.store_unavailable", reason=str(error))
                fed = False
            if not fed:
                await self._store_changed()

    # ------------------------------------------------------------------------------------------ how much

    def _want(self) -> int:
        """Return how many more requests to lease: the free places, and what is sent in the next `ahead_s`."""
        self._measure()
        if self._holds.length >= self._settings.held_bytes_max:
            return 0
        return self._lanes.shortage(max(AHEAD_MIN, int(self._rate * self._settings.ahead_s)))

    def _measure(self) -> None:
        now_s = time.monotonic()
        if now_s - self._rated_s >= self._settings.ahead_s / 2:
            finished = self._holds.finished - self._rated_finished
            self._rate += 0.5 * (finished / (now_s - self._rated_s) - self._rate)
            self._rated_s, self._rated_finished = now_s, self._holds.finished

    async def _rest(self, event: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._settings.idle_poll_s):
                await event.wait()
        except TimeoutError:
            pass

    async def _store_changed(self) -> None:
        """Wait until there may be something new to claim."""
        wait_s = self._settings.idle_poll_s
        trouble_s = self._lanes.trouble_left_s()
        if trouble_s is not None:
            wait_s = min(wait_s, max(0.02, trouble_s))
        try:
            await self._store.changed(wait_s)
        except StoreUnavailable:
            await asyncio.sleep(wait_s)

    # ------------------------------------------------------------------------------------------ a round

    async def _round(self, want: int) -> bool:
        """Choose, claim and feed once; returns whether anything was claimed."""
        self._give_up_stuck()
        now_us = self._clock.wall_us()
        backlogs = [each for each in await self._store.backlogs() if self._ends_us(each.expires_us) > now_us]
        if any(hold.suspect for hold in self._holds.by_key.values()):
            return False
        if self._suspects_are_due(backlogs):
            return await self._claim(await self._one_suspect(backlogs)) if not len(self._holds) else False
        ordinary = [each for each in backlogs if each.open > each.suspects]
        room = self._settings.held_bytes_max - self._holds.length
        chosen = await self._chooser.choose(ordinary, want, self._lanes.wants, self._rate, now_us, length_max=room)
        if chosen:
            return await self._claim(chosen[:CLAIM_CHUNKS_MAX])
        if not len(self._holds):
            return await self._claim(await self._one_suspect(backlogs))
        return False

    def _ends_us(self, expires_us: int) -> int:
        return max(expires_us, self._grace_until_us)

    def _suspects_are_due(self, backlogs: Sequence[Backlog]) -> bool:
        """Tell whether suspects have waited long enough for the worker to make a quiet moment for one."""
        if not any(each.suspects for each in backlogs):
            self._suspects_since_s = None
            return False
        now_s = time.monotonic()
        if self._suspects_since_s is None:
            self._suspects_since_s = now_s
        return now_s - self._suspects_since_s >= self._settings.suspect_wait_s

    async def _one_suspect(self, backlogs: Sequence[Backlog]) -> list[int]:
        if time.monotonic() < self._lanes.suspects_rest_until_s:
            return []
        for backlog in backlogs:
            if backlog.suspects:
                for chunk in await self._store.open_chunks(backlog.batch_key, 0, CLAIM_CHUNKS_MAX, suspects=True):
                    if self._lanes.goes(chunk.model):
                        self._suspects_since_s = None
                        return [chunk.key]
        return []

    def _give_up_stuck(self) -> None:
        """Give back what cannot be sent soon: its upstreams are all in trouble for longer than we lease ahead."""
        wait_s = self._lanes.trouble_left_s()
        if wait_s is None or wait_s <= self._settings.ahead_s:
            return
        stuck = [
            hold
            for hold in self._holds.by_key.values()
            if not hold.flying and not hold.winding_up and hold.unfinished and not self._lanes.goes(hold.claimed.model)
        ]
        self._lanes.withdraw(stuck)
        for hold in stuck:
            hold.returning = True
            self._holds.wind_up(hold)

    # ------------------------------------------------------------------------------------------ claim and feed

    async def _claim(self, keys: list[int]) -> bool:
        if not keys:
            return False
        claimed = await self._claim_surely(keys)
        _log.debug("chunk.claimed", session=self._session, chunks=len(claimed))
        holds = [Hold.of(each, self._deadline_s(each)) for each in claimed]
        for hold in holds:
            self._holds.add(hold)
        with FED:
            for run in _neighbours(holds):
                await self._feed(run)
        return bool(holds)

    async def _claim_surely(self, keys: list[int]) -> Sequence[Claimed]:
        """Claim; after a lost answer claim the same again, so that nothing stays leased that nobody knows of."""
        while True:
            try:
                return await self._store.claim(self._session, keys)
            except StoreUnavailable as error:
                _log.warning("claim.repeated", session=self._session, reason=str(error))
                await asyncio.sleep(self._settings.idle_poll_s)

    async def _feed(self, run: Sequence[Hold]) -> None:
        """Read neighbouring chunks together and feed them; a chunk that cannot be read is closed as errored."""
        first, last = run[0].claimed, run[-1].claimed
        try:
            data = await self._objects.read(first.request_key, first.offset, last.offset + last.length - first.offset)
        except (ObjectDamaged, ObjectMissing) as error:
            if len(run) > 1:
                for hold in run:
                    await self._feed([hold])
            else:
                self._close_damaged(run[0], error)
        except StorageError as error:
            _log.warning("chunk.unreadable", chunk=first.key, batch=first.batch_id, reason=str(error))
            for hold in run:
                hold.returning = True
            self._holds.urgent.set()
            await asyncio.sleep(self._settings.idle_poll_s)
        else:
            for hold in run:
                # While it was read the lease may have been lost, or the batch canceled: then nothing of it is sent.
                if not hold.winding_up:
                    start = hold.claimed.offset - first.offset
                    self._feed_one(hold, data[start : start + hold.claimed.length])

    def _close_damaged(self, hold: Hold, error: StorageError) -> None:
        _log.error("chunk.damaged", chunk=hold.key, batch=hold.claimed.batch_id, reason=str(error))
        hold.closing = Outcome.ERRORED
        hold.closing_error = error_result(ErrorType.API, DAMAGED, None)
        self._holds.urgent.set()

    def _deadline_s(self, claimed: Claimed) -> float:
        left_us = self._ends_us(claimed.expires_us) - self._clock.wall_us()
        return time.monotonic() + left_us / SECOND_US

    def _feed_one(self, hold: Hold, data: bytes) -> None:
        claimed = hold.claimed
        try:
            requests = decode_requests(data, claimed.head_length, claimed.head_checksum, claimed.resolved)
        except ObjectDamaged as error:
            self._close_damaged(hold, error)
            return
        terms = self._terms(claimed)
        condemned = set(bits(claimed.condemned))
        ready: list[Pending] = []
        for request in requests:
            if request.index in condemned:
                self._refuse(hold, request, ErrorType.API, CONDEMNED)
            elif self._passes(hold, request, terms):
                pending = Pending(hold, request.index, request.custom_id, request.params, terms.route)
                self._holds.expect(pending)
                ready.append(pending)
        if hold.complete:
            self._holds.urgent.set()
        if not hold.suspect:
            for pending in ready:
                self._lanes.put(pending)
        elif ready and not hold.fresh:
            self._lanes.put(ready[0])

    def _terms(self, claimed: Claimed) -> "_Terms":
        route = self._lanes.route(claimed.model)
        return _Terms(
            route,
            fetches_urls=self._lanes.fetches_urls(route),
            profile=claimed.headers.get(PROFILE_HEADER),
            allowed=allows(claimed.models, claimed.model),
        )

    def _passes(self, hold: Hold, request: Request, terms: "_Terms") -> bool:
        """Tell whether a request may be sent; one that may not comes to its result here."""
        checked = check_params(request.params, fetches_urls=terms.fetches_urls, profile=terms.profile)
        if isinstance(checked, Refusal):
            self._refuse(hold, request, checked.error_type, checked.message)
        elif not terms.allowed:
            self._refuse(hold, request, ErrorType.PERMISSION, f"This API key may not use the model {checked.model}")
        elif not terms.route:
            self._refuse(hold, request, ErrorType.NOT_FOUND, f"model: {hold.claimed.model}")
        else:
            return True
        return False

    def _refuse(self, hold: Hold, request: Request, error_type: ErrorType, message: str) -> None:
        self._holds.finish(hold, request.index, refusal_line(request.custom_id, error_type, message), None)


def next_of_suspect(hold: Hold) -> Pending | None:
    """Return the request of a suspect chunk that may run now: its first unfinished one, once all is committed."""
    if hold.winding_up or hold.flying or hold.fresh or not hold.unfinished:
        return None
    return hold.unfinished[min(hold.unfinished)]


def _neighbours(holds: Sequence[Hold]) -> Iterator[list[Hold]]:
    """Yield runs of chunks that stand side by side in one object, in order, each short enough for one read."""
    run: list[Hold] = []
    for hold in sorted(holds, key=lambda one: (one.claimed.request_key, one.claimed.offset)):
        each = hold.claimed
        follows = (
            run
            and each.request_key == run[-1].claimed.request_key
            and each.offset == run[-1].claimed.offset + run[-1].claimed.length
            and each.offset + each.length - run[0].claimed.offset <= READ_LENGTH_MAX
        )
        if run and not follows:
            yield run
            run = []
        run.append(hold)
    if run:
        yield run
