"""Deleting dead objects: the only code of Lowtide that may.

An object goes only when rows prove it dead, never by age alone: what `doomed` names (the objects of batches archived
or deleted an hour ago, of uploads whose row was removed first), and segments none of whose parts is recorded and whose
session is past. A past session is never revived, so nothing can be recorded between that proof and the deletion.
Several processes may do the same at once: deleting twice is success. Proof: `tests/upkeep/test_sweep.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from lowtide import faults
from lowtide.domain.times import HOUR_US
from lowtide.ports.metadata import MetadataStore
from lowtide.ports.objects import ObjectStore, StoredObject

_log = structlog.get_logger()

SEGMENTS = "segments/"
_GRACE_US = HOUR_US
"""Between the row that says an object is of no use any more and its deletion: downloads that began before may end."""

_PURGE_BATCHES = 16
_DELETIONS = 256
_DELETIONS_AT_ONCE = 8
_SWEEP_KEYS = 1024

DELETE_OBJECT = faults.point("upkeep.delete_object", "an object that rows prove dead is removed")
FORGET_OBJECTS = faults.point("upkeep.forget_objects", "the rows of doomed objects that are gone are dropped")


class Purger:
    """Removes the rows of batches past their grace, then the objects that those rows kept."""

    def __init__(self, store: MetadataStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    async def step(self) -> bool:
        doomed = await self._store.purge(_GRACE_US, _PURGE_BATCHES)
        if doomed:
            _log.info("upkeep.doomed", objects=doomed)
        keys = [one.key for one in await self._store.doomed(_DELETIONS)]
        if keys:
            await _delete(self._objects, keys)
            with FORGET_OBJECTS:
                await self._store.forget(keys)
            _log.info("upkeep.purged", objects=len(keys))
        return bool(doomed) or len(keys) == _DELETIONS


class Sweeper:
    """Removes segments that a worker put and never recorded, because it died or lost its lease in between."""

    def __init__(self, store: MetadataStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._listing: AsyncIterator[StoredObject] | None = None

    async def step(self) -> bool:
        """Judge one page of the listing; one listing spans many steps and is begun anew after a failure."""
        listing, self._listing = self._listing or self._objects.list(SEGMENTS), None
        keys = [one.key async for one in _take(listing, _SWEEP_KEYS)]
        dead = await self._store.dead_segments(keys) if keys else []
        if dead:
            await _delete(self._objects, dead)
            _log.info("upkeep.swept", segments=len(dead))
        if len(keys) < _SWEEP_KEYS:
            return False
        self._listing = listing
        return True


async def _take(listing: AsyncIterator[StoredObject], count: int) -> AsyncIterator[StoredObject]:
    for _ in range(count):
        try:
            yield await anext(listing)
        except StopAsyncIteration:
            return


async def _delete(objects: ObjectStore, keys: Sequence[str]) -> None:
    """Delete objects, a few at a time."""
    for start in range(0, len(keys), _DELETIONS_AT_ONCE):
        async with asyncio.TaskGroup() as deletions:
            for key in keys[start : start + _DELETIONS_AT_ONCE]:
                deletions.create_task(_delete_one(objects, key))


async def _delete_one(objects: ObjectStore, key: str) -> None:
    with DELETE_OBJECT:
        await objects.delete(key)
