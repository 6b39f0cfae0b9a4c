"""A real store and a real directory of objects on a clock that the test turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lowtide.ports.clock import Clock
from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sqlite import SqliteStore
from support.batches import Batches, TurnedClock


@dataclass(frozen=True, slots=True)
class Lab:
    """What a test of a service works with. `root` is where the objects lie."""

    store: SqliteStore
    objects: LocalObjects
    batches: Batches
    clock: TurnedClock
    root: Path

    def keys(self, prefix: str = "") -> set[str]:
        """Return the keys of the objects on disk that begin with `prefix`."""
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return {key for key in found if key.startswith(prefix)}


@asynccontextmanager
async def lab_in(directory: Path) -> AsyncIterator[Lab]:
    """Open a lab in an empty directory."""
    clock = TurnedClock()
    root = directory / "objects"
    objects = LocalObjects(root)
    async with store_in(directory, clock) as store:
        yield Lab(store, objects, Batches(store, objects), clock, root)


async def migrate(path: Path, clock: Clock) -> None:
    """Make a database at the current schema, to be copied: a migration for each test would take most of the time."""
    store = SqliteStore(path, clock)
    await store.open()
    await store.close()


@asynccontextmanager
async def store_in(directory: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    """Open the directory's store, as one more process would."""
    store = SqliteStore(directory / "lowtide.db", clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
