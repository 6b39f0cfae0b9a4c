"""Migrations lead to exactly what `tables` describes, once, whoever comes first; a newer database is refused."""

import asyncio
import re
import sqlite3
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from lowtide.domain.errors import StorageError, StoreUnavailable
from lowtide.storage import migrate
from lowtide.storage.sqlite import SqliteStore
from lowtide.storage.tables import metadata
from support.steps import SetClock


def test_the_newest_migration_is_the_schema_of_the_code() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.SCHEMA


def test_tables_and_migrations_agree(migrated: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    engine.dispose()


def test_checks_and_partial_indexes_agree_too(migrated: Path, tmp_path: Path) -> None:
    """Alembic compares neither."""
    engine = create_engine(f"sqlite:///{tmp_path / 'made.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert _schema(tmp_path / "made.db") == _schema(migrated)


def _schema(path: Path) -> dict[str, list[str]]:
    conn = sqlite3.connect(path)
    found = conn.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'")
    # a column that was added later stands behind the last one in its line
    ends = re.compile(r",?\s*\n\s*|, (?=\w+ (?:BIGINT|BOOLEAN|INTEGER|TEXT|VARCHAR)\b)")
    parts = {name: sorted(line.strip() for line in ends.split(sql)) for name, sql in found}
    conn.close()
    return parts


async def test_a_database_of_a_newer_lowtide_is_refused_clearly(migrated: Path, tmp_path: Path) -> None:
    path = tmp_path / "lowtide.db"
    path.write_bytes(migrated.read_bytes())
    conn = sqlite3.connect(path)
    conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.commit()
    conn.close()
    store = SqliteStore(path, SetClock())
    with pytest.raises(StorageError, match=r"written by a newer Lowtide \(schema 9999\)"):
        await store.open()
    with pytest.raises(StoreUnavailable, match="schema 9999"):
        await store.check()
    await store.close()


async def test_processes_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from lowtide.ports.clock import SystemClock\n"
        "from lowtide.storage.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), SystemClock())\n"
        "    await store.open(); await store.check(); await store.open_session('w', 1); await store.close()\n"
        "asyncio.run(main())\n"
    )
    path = str(tmp_path / "lowtide.db")
    openers = [await asyncio.create_subprocess_exec(sys.executable, "-c", script, path) for _ in range(3)]
    assert [await opener.wait() for opener in openers] == [0, 0, 0]


async def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        store = SqliteStore(tmp_path / "lowtide.db", SetClock())
        await store.open()
        await store.open_session("worker", 1)
        await store.check()
        await store.close()
    conn = sqlite3.connect(tmp_path / "lowtide.db")
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (2,)
    conn.close()
