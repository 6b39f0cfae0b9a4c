"""Committing: the results of all held chunks as one segment, object first, then one transaction.

About once a second, and at once when somebody would only wait for it. Invariants: accepted-is-durable for results (the
segment is durable before a row speaks of it), n-in-n-out (a commit whose answer was lost is repeated as it was, never
judged), one-winner (a refused part is dropped with its hold). Holds that are to be given back are given back here, after
their results.
"""

import asyncio
import time

import structlog

from lowtide.dispatch.feed import next_of_suspect
from lowtide.dispatch.hold import Fresh, Hold, Holds
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.lanes import Lanes
from lowtide.dispatch.segments import Segment, build
from lowtide.domain.errors import StorageError, StoreUnavailable
from lowtide.faults import point
from lowtide.ports.metadata import Commit, Committed

REPEAT_S = 0.5
"""The wait before a commit that failed is repeated."""

SEGMENT = point("dispatch.segment", "a segment is put; no row speaks of it yet")
ROWS = point("dispatch.rows", "the rows of a segment are recorded")

_log = structlog.get_logger()


class Committer:
    """Commits for a session; its commits are numbered, one at a time."""

    def __init__(self, session: str, kit: Kit, lanes: Lanes, holds: Holds) -> None:
        self._session = session
        self._store = kit.store
        self._objects = kit.objects
        self._settings = kit.settings
        self._reporter = kit.reporter
        self._lanes = lanes
        self._holds = holds
        self._ending = False
        self._number = 0

    async def run(self) -> None:
        """Commit until told to end; a commit that has begun is finished."""
        while not self._ending:
            try:
                async with asyncio.timeout(self._settings.commit_interval_s):
                    await self._holds.urgent.wait()
            except TimeoutError:
                pass
            await self.commit()

    def end(self) -> None:
        """Let `run` return after the commit it is at."""
        self._ending = True
        self._holds.urgent.set()

    async def commit(self) -> None:
        """Commit what is there, then give back what is to be given back."""
        self._holds.urgent.clear()
        taken = [(hold, self._take(hold)) for hold in self._holds.by_key.values() if hold.has_news]
        if taken:
            await self._record(build(taken), taken)
        await self._give_back()

    def _take(self, hold: Hold) -> list[Fresh]:
        taken, hold.fresh = hold.fresh, []
        hold.tries_changed = False
        return taken

    async def _record(self, segment: Segment, taken: list[tuple[Hold, list[Fresh]]]) -> None:
        self._number += 1
        began_s = time.monotonic()
        key = f"segments/{self._session}/{self._number}"
        if segment.length:
            await self._put(key, segment)
        commit = Commit(self._session, self._number, key, segment.length, segment.blocks, segment.parts)
        with ROWS:
            committed = await self._commit_surely(commit)
        counted = [(hold, len(results)) for hold, results in taken]
        self._reporter.committed(segment.parts, counted, committed, time.monotonic() - began_s)
        closed = {part.chunk for part in segment.parts if part.closing is not None}
        self._digest(committed, closed, taken)
        _log.info(
            "segment.committed",
            session=self._session,
            number=self._number,
            parts=len(committed.accepted),
            refused=len(committed.refused),
            lines=sum(block.lines for block in segment.blocks),
            length=segment.length,
            ended=committed.ended,
        )

    async def _put(self, key: str, segment: Segment) -> None:
        """Store the segment durably, however long the store refuses; meanwhile senders go on within their holds."""
        with SEGMENT:
            while True:
                try:
                    await self._objects.put(key, segment.pieces)
                except StorageError as error:
                    self._reporter.store_failed(error)
                    _log.warning("segment.put_failed", session=self._session, number=self._number, reason=str(error))
                    await asyncio.sleep(REPEAT_S)
                else:
                    return

    async def _commit_surely(self, commit: Commit) -> Committed:
        """Commit until there is an answer: (session, number) is unique, so a repeat finds itself."""
        while True:
            try:
                return await self._store.commit(commit)
            except StoreUnavailable as error:
                _log.warning("commit.repeated", session=self._session, number=commit.number, reason=str(error))
                await asyncio.sleep(REPEAT_S)

    def _digest(self, committed: Committed, closed: set[int], taken: list[tuple[Hold, list[Fresh]]]) -> None:
        for hold, results in taken:
            if hold.key in committed.refused:
                self.drop(hold)
            elif (hold.complete and not hold.fresh) or hold.key in closed:
                self._holds.remove(hold)
            elif hold.suspect and results and (pending := next_of_suspect(hold)) is not None:
                self._lanes.put(pending)

    async def _give_back(self) -> None:
        back = [
            hold
            for hold in self._holds.by_key.values()
            if hold.returning and hold.closing is None and not hold.flying and not hold.has_news and not hold.complete
        ]
        if not back:
            return
        try:
            await self._store.give_back(self._session, [hold.returned() for hold in back])
        except StoreUnavailable as error:
            _log.warning("give_back.failed", session=self._session, reason=str(error))
            return
        for hold in back:
            self._holds.remove(hold)
        _log.info("chunk.given_back", session=self._session, chunks=len(back), lost=sum(hold.lost for hold in back))

    def drop(self, hold: Hold) -> None:
        """Let go of a hold whose lease is lost: its calls are aborted, its results thrown away."""
        hold.dropped = True
        self._lanes.withdraw([hold])
        for pending in list(hold.flying):
            pending.abort()
        self._holds.remove(hold)
        _log.warning("lease.lost", session=self._session, chunk=hold.key, attempt=hold.claimed.attempt)
