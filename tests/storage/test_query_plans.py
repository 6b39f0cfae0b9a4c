"""No statement walks a whole table, and none looks at all that a session holds for each row it is given."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from lowtide.domain.outcomes import Outcome
from lowtide.domain.times import DAY_US
from lowtide.ports.metadata import Creation, Returned
from lowtide.ports.report import Count, Report
from support.steps import WORKSPACE, Steps, rest, some

_MAY_SCAN = re.compile(
    r"VIRTUAL TABLE"  # rows that a statement brings along
    r"|SCAN (session|upload|doomed|held|alembic_version|sums|anon_\d+)( USING COVERING INDEX \w+)?$"  # small for good: they hold what is under way
    r"|SCAN counter USING INDEX sqlite_autoindex_counter_1$"  # a row per name of the configuration
    r"|SCAN batch USING (COVERING )?INDEX ix_batch_(running|in_progress|canceling|merging)$"  # what is under way
    r"|SCAN chunk USING (COVERING )?INDEX ix_chunk_(live|session)$"  # likewise
)


@pytest.fixture
def seen() -> Iterator[dict[str, Any]]:
    statements: dict[str, Any] = {}

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.setdefault(statement, parameters)

    event.listen(Engine, "before_cursor_execute", note)
    yield statements
    event.remove(Engine, "before_cursor_execute", note)


async def _everything(steps: Steps) -> None:
    store = steps.store
    one, two, three = await steps.batch((8,) * 3, queued_requests_max=1000), await steps.batch(), await steps.batch()
    await store.find_creation(WORKSPACE, Creation("credential", "digest", 1, None))
    session = await steps.session()
    (backlog, *_) = await store.backlogs()
    await store.open_chunks(backlog.batch_key, 0, 10)
    await store.open_chunks(backlog.batch_key, 0, 10, suspects=True)
    held = await steps.claim(session, one)
    await store.heartbeat(session.id, [held[0].key], Report(1, added=[Count("retries", (), 1)]))
    await store.progress(WORKSPACE, one.id)
    await store.workers()
    await store.gauges()
    await steps.commit(session, [rest(held[0]), some(held[1], 1, closing=Outcome.ERRORED, closing_error=b"{}")])
    await store.give_back(session.id, [Returned(held[2].key, held[2].attempt)])
    await steps.claim(session, one)
    await store.end_session(session.id)
    await store.release_worker("worker")
    await steps.claim(await steps.session("dies", 1), three)
    steps.clock.pass_lease(2)
    await store.reap()
    await store.cancel_batch(WORKSPACE, two.id)
    await store.close_canceling(10)
    await store.name_batch(WORKSPACE, two.id, "credential")
    for cursor in ({}, {"before_id": two.id}, {"after_id": two.id}):
        await store.list_batches(WORKSPACE, 10, **cursor)
    steps.clock.pass_wall(2 * DAY_US)
    await store.expire(10)
    await store.end_check()
    (*_, last) = await store.blocks(WORKSPACE, one.id, None, 10)
    await store.blocks(WORKSPACE, one.id, last, 10)
    await store.closings(WORKSPACE, one.id, 0, 10)
    await steps.merge(await steps.session())
    await store.delete_batch(WORKSPACE, one.id)
    await store.retire(0, 10)
    await store.purge(0, 10)
    await store.forget([it.key for it in await store.doomed(10)])
    await store.dead_segments(["segments/s/1"])


async def test_every_statement_finds_its_rows_by_index(steps: Steps, seen: dict[str, Any], tmp_path: Path) -> None:
    await _everything(steps)
    conn = sqlite3.connect(tmp_path / "lowtide.db")
    scans = []
    for statement, parameters in seen.items():
        if not statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")) or "sqlite_master" in statement:
            continue
        plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        scans += [(line, statement) for line in plan if line.startswith("SCAN") and not _MAY_SCAN.search(line)]
    conn.close()
    assert len(seen) > 60
    assert scans == []


async def test_rows_that_are_brought_lead_to_chunks_by_key(steps: Steps, seen: dict[str, Any], tmp_path: Path) -> None:
    """The row source comes first, each chunk is then one look-up: never a walk through the source per chunk."""
    await _everything(steps)
    conn = sqlite3.connect(tmp_path / "lowtide.db")
    wrong = []
    for statement, parameters in seen.items():
        if statement.startswith("UPDATE") and "json_each" in statement:
            first, *_ = (row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))
            if "VIRTUAL TABLE" not in first:
                wrong.append((first, statement))
    conn.close()
    assert wrong == []
