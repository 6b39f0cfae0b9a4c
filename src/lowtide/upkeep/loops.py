"""Upkeep: the loops that move what no call and no worker moves.

| loop | what it does |
|---|---|
| reap | sessions whose lease ran out become past, their chunks are open again |
| close | open chunks of canceling batches are closed |
| expire | batches past their window end |
| end-check | a batch without an open chunk that is not ended is ended: 0, but for a fault |
| retire | results go 29 days after creation, the batch stays to be seen |
| merge | small blocks of ended batches become large ones |
| purge | rows and objects of what was archived, deleted or merged an hour ago go |
| sweep | segments that no row knows go |

Every API process runs all of them: each effect is one guarded operation of the store, so that doing it twice, or in
several processes at once, changes nothing. A loop's failure is its own.
"""

import asyncio
from dataclasses import dataclass

import structlog

from lowtide.domain.limits import Limits
from lowtide.ports.clock import Clock
from lowtide.ports.metadata import MetadataStore
from lowtide.ports.objects import ObjectStore
from lowtide.upkeep.expiry import Expiry
from lowtide.upkeep.merge import MERGED_BLOCKS_MIN, Merger
from lowtide.upkeep.objects import Purger, Sweeper
from lowtide.upkeep.pace import keep

_log = structlog.get_logger()

_CLOSE_CHUNKS = 512
_RETIRE_BATCHES = 16


@dataclass(frozen=True, slots=True)
class UpkeepIntervals:
    """Seconds between the rounds of each loop, how long expiry holds after a start, and from how many blocks on a
    batch is merged.
    """

    reap_s: float = 0.5
    close_s: float = 0.5
    expire_s: float = 5.0
    end_check_s: float = 30.0
    retire_s: float = 60.0
    purge_s: float = 30.0
    sweep_s: float = 600.0
    expire_grace_s: float = 60.0
    merge_s: float = 2.0
    merge_blocks_min: int = MERGED_BLOCKS_MIN


class Upkeep:
    """Runs the loops of one process."""

    def __init__(
        self, store: MetadataStore, objects: ObjectStore, clock: Clock, limits: Limits, intervals: UpkeepIntervals
    ) -> None:
        self._store = store
        self._limits = limits
        self._intervals = intervals
        self._expiry = Expiry(store, clock, grace_s=intervals.expire_grace_s, interval_s=intervals.expire_s)
        self._merger = Merger(store, objects, intervals.merge_blocks_min)
        self._purger = Purger(store, objects)
        self._sweeper = Sweeper(store, objects)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep all loops going until `stop` is set; returns when the steps in progress are finished."""
        every = self._intervals
        async with asyncio.TaskGroup() as loops:
            for name, step, interval_s in (
                ("reap", self._reap, every.reap_s),
                ("close", self._close, every.close_s),
                ("expire", self._expiry.step, every.expire_s),
                ("end-check", self._end_check, every.end_check_s),
                ("retire", self._retire, every.retire_s),
                ("merge", self._merger.step, every.merge_s),
                ("purge", self._purger.step, every.purge_s),
                ("sweep", self._sweeper.step, every.sweep_s),
            ):
                loops.create_task(keep(name, step, interval_s, stop), name=f"upkeep.{name}")

    async def _reap(self) -> bool:
        reaped = await self._store.reap()
        if reaped.sessions:
            _log.info(
                "upkeep.reaped",
                sessions=reaped.sessions,
                reopened=reaped.reopened,
                losses=reaped.losses,
                closed=reaped.closed,
            )
        return False

    async def _close(self) -> bool:
        closed = await self._store.close_canceling(_CLOSE_CHUNKS)
        if closed:
            _log.info("upkeep.closed", chunks=closed)
        return closed >= _CLOSE_CHUNKS

    async def _end_check(self) -> bool:
        ended = await self._store.end_check()
        if ended:
            _log.error("upkeep.ended_late", batches=ended)
        return False

    async def _retire(self) -> bool:
        retired = await self._store.retire(self._limits.retention_us, _RETIRE_BATCHES)
        if retired:
            _log.info("upkeep.retired", batches=retired)
        return retired >= _RETIRE_BATCHES
