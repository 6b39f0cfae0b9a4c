"""The storage drivers under test. A new driver joins by one more entry in a `params`, and is finished when all pass."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sql_store import SqlStore
from lowtide.storage.sqlite import SqliteStore
from support.lab import migrate
from support.steps import SetClock, Steps


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "lowtide.db"
    asyncio.run(migrate(path, SetClock()))
    return path


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["sqlite"])
async def store(migrated: Path, tmp_path: Path, clock: SetClock) -> AsyncIterator[SqlStore]:
    path = tmp_path / "lowtide.db"
    shutil.copy(migrated, path)
    opened = SqliteStore(path, clock)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def steps(store: SqlStore, clock: SetClock) -> Steps:
    return Steps(store, clock)


@pytest.fixture(params=["local"])
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "objects")
