"""What is SQLite's own: durability settings, many writers, errors at the edge, and waking at a write."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lowtide import faults
from lowtide.domain.errors import StoreFull, StoreUnavailable
from lowtide.storage import sql_store, sqlite
from lowtide.storage.sqlite import SqliteStore
from support.steps import WORKSPACE, SetClock, Steps, rest


def _pragma(store: SqliteStore, name: str) -> list[int | str]:
    found = []
    for engine in (store._writer, store._readers):
        with engine.connect() as conn:
            found.append(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one())
    return found


async def test_every_connection_syncs_fully_and_keeps_a_write_ahead_log(store: SqliteStore) -> None:
    assert _pragma(store, "journal_mode") == ["wal", "wal"]
    assert _pragma(store, "synchronous") == [2, 2]
    assert _pragma(store, "foreign_keys") == [1, 1]


async def test_a_write_begins_immediate_and_a_read_does_not_hold_a_writer_up(
    store: SqliteStore, tmp_path: Path
) -> None:
    reader = sqlite3.connect(tmp_path / "lowtide.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM session").fetchone()
    await store.open_session("worker", 1)
    assert reader.execute("SELECT count(*) FROM session").fetchone() == (0,)
    reader.close()
    with store._writer.connect() as conn, conn.begin():
        assert conn.connection.dbapi_connection.in_transaction
        other = sqlite3.connect(tmp_path / "lowtide.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


async def test_a_database_that_stays_locked_is_unavailable_and_then_available(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store._writer.connect() as conn:
        conn.exec_driver_sql("PRAGMA busy_timeout=10")
        conn.rollback()
    other = sqlite3.connect(tmp_path / "lowtide.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await store.open_session("worker", 1)
    other.rollback()
    other.close()
    await store.open_session("worker", 1)


async def test_a_full_disk_is_store_full_and_loses_nothing(store: SqliteStore, steps: Steps) -> None:
    batch = await steps.batch()
    with store._writer.connect() as conn:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        conn.rollback()
    with pytest.raises(StoreFull):
        await steps.batch((32,) * 2000)
    with store._writer.connect() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count=1000000")
        conn.rollback()
    await steps.batch((32,) * 2000)
    assert await steps.store.get_batch(WORKSPACE, batch.id) == batch


async def test_two_stores_on_one_file_share_what_they_write(store: SqliteStore, steps: Steps, tmp_path: Path) -> None:
    other = SqliteStore(tmp_path / "lowtide.db", SetClock())
    await other.open()
    sessions = await asyncio.gather(*(one.open_session("w", 1) for one in (store, other) for _ in range(20)))
    assert len({session.id for session in sessions}) == 40
    assert (await other.release_worker("w")).sessions == 40
    await other.close()


async def test_a_waiter_wakes_at_another_processs_write_and_misses_none_in_between(
    store: SqliteStore, tmp_path: Path
) -> None:
    other = SqliteStore(tmp_path / "lowtide.db", SetClock())
    await other.open()
    await store.changed(0)
    waiting = asyncio.ensure_future(store.changed(60))
    await asyncio.sleep(0)
    await other.open_session("w", 1)
    await waiting
    await other.open_session("w", 1)
    await store.changed(60)
    await store.changed(0.01)
    await other.close()


async def test_a_cancelled_caller_leaves_a_whole_transaction_or_none(store: SqliteStore, steps: Steps) -> None:
    batch = await steps.batch((8,) * 20)
    session = await steps.session()
    held = await steps.claim(session, batch)
    commits = [asyncio.ensure_future(steps.commit(session, [rest(one)], number)) for number, one in enumerate(held)]
    await commits[3]
    for commit in commits:
        commit.cancel()
    await asyncio.gather(*commits, return_exceptions=True)
    answers = [await steps.commit(session, [rest(one)], number) for number, one in enumerate(held)]
    assert [len(answer.accepted) for answer in answers] == [1] * 20
    assert (await steps.get(batch)).counts.succeeded == 160


@pytest.mark.parametrize("action", ["error-before", "error-after"])
async def test_a_fault_at_a_commit_is_unavailable_and_the_operation_may_be_repeated(
    store: SqliteStore, steps: Steps, action: str
) -> None:
    batch = await steps.batch()
    session = await steps.session()
    (claimed,) = await steps.claim(session, batch)
    sql_store.COMMIT.arm(action)
    new = steps.segment(session, [rest(claimed)])
    with pytest.raises(StoreUnavailable):
        await store.commit(new)
    assert ((await steps.get(batch)).ended_us is None) == (action == "error-before")
    assert (await store.commit(new)).ended == [batch.id]


@pytest.mark.parametrize(("action", "kept"), [("kill-before", 0), ("kill-after", 1)])
def test_a_commit_that_returned_survives_the_death_of_its_process(tmp_path: Path, action: str, kept: int) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from lowtide.ports.clock import SystemClock\n"
        "from lowtide.storage.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), SystemClock())\n"
        "    await store.open(); await store.open_session('w', 1)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "lowtide.db"
    env = os.environ | {"LOWTIDE_FAULTS": f"store.open_session={action}"}
    died = subprocess.run([sys.executable, "-c", script, str(path)], env=env, check=False)
    assert died.returncode == -9
    conn = sqlite3.connect(path)
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (kept,)
    conn.close()


def test_every_write_has_its_fault_point() -> None:
    points = {name for name in faults.registered() if name.startswith("store.")}
    assert len(points) == 23
    assert sqlite.BUSY_TIMEOUT_S > faults.HANG_S
