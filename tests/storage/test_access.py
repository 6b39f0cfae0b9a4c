"""Workspaces and keys in every store: made, found by digest alone, rotated, revoked, never removed."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from lowtide.domain.ids import DEFAULT_WORKSPACE, KEY, WORKSPACE, new_id
from lowtide.domain.keys import Scope, Secret, new_key
from lowtide.domain.times import DAY_US, HOUR_US
from lowtide.ports.access import (
    Key,
    NameTaken,
    NewKey,
    NoSuchKey,
    NoSuchWorkspace,
    Rotation,
    Workspace,
    WorkspaceLimits,
)
from lowtide.storage.sql_store import SqlStore
from support.steps import SetClock


def a_key(secret: Secret, workspace: str = "default", **changes: Any) -> NewKey:
    values: dict[str, Any] = {
        "id": new_id(KEY),
        "name": "laptop",
        "workspace": workspace,
        "scopes": frozenset({Scope.BATCHES, Scope.MESSAGES}),
        "models": (),
        "lifetime_us": None,
        "digest": secret.digest,
    }
    return NewKey(**values | changes)


async def made(store: SqlStore, **changes: Any) -> tuple[Secret, Key]:
    secret = new_key()
    return secret, await store.create_key(a_key(secret, **changes))


async def rotated(store: SqlStore, key: Key, grace_us: int = HOUR_US) -> tuple[Secret, Key]:
    secret = new_key()
    return secret, await store.rotate_key(Rotation(new_id(KEY), key.id, grace_us, secret.digest))


async def test_a_new_store_has_the_default_workspace_and_no_key(store: SqlStore) -> None:
    (workspace,) = await store.workspaces()
    assert (workspace.id, workspace.name, workspace.limits) == (DEFAULT_WORKSPACE, "default", WorkspaceLimits())
    assert await store.keys() == []
    assert not await store.has_keys()


async def test_workspaces_are_listed_oldest_first_and_their_names_are_their_own(
    store: SqlStore, clock: SetClock
) -> None:
    limits = WorkspaceLimits(60, 0)
    first = await store.create_workspace("wrkspc_b", "b", limits)
    clock.pass_wall(1)
    second = await store.create_workspace("wrkspc_a", "a", WorkspaceLimits())
    assert first == Workspace("wrkspc_b", "b", clock.wall - 1, limits)
    assert set(await store.workspaces()) >= {first, second}
    with pytest.raises(NameTaken):
        await store.create_workspace(new_id(WORKSPACE), "b", limits)


async def test_making_a_workspace_or_a_key_again_after_a_lost_answer_finds_it(store: SqlStore) -> None:
    first = await store.create_workspace("wrkspc_x", "x", WorkspaceLimits(1, 2))
    assert await store.create_workspace("wrkspc_x", "x", WorkspaceLimits(1, 2)) == first
    new = a_key(new_key())
    assert await store.create_key(new) == await store.create_key(new)
    rotation = Rotation(new_id(KEY), new.id, HOUR_US, new_key().digest)
    assert await store.rotate_key(rotation) == await store.rotate_key(rotation)
    assert len(await store.keys()) == 2


async def test_limits_are_set_and_found_with_each_key(store: SqlStore) -> None:
    secret, _ = await made(store)
    changed = await store.set_limits("default", WorkspaceLimits(5, 1000))
    assert changed.limits == WorkspaceLimits(5, 1000)
    found = await store.find_key(secret.digest)
    assert found is not None
    assert found.workspace == changed
    with pytest.raises(NoSuchWorkspace, match="no workspace away"):
        await store.set_limits("away", WorkspaceLimits())


@pytest.mark.parametrize("limits", [WorkspaceLimits(-1), WorkspaceLimits(None, -1), WorkspaceLimits(0, -5)])
async def test_a_limit_below_nothing_is_refused_by_the_table(store: SqlStore, limits: WorkspaceLimits) -> None:
    with pytest.raises(IntegrityError):
        await store.set_limits("default", limits)


async def test_a_key_is_found_by_its_digest_with_all_that_it_may(store: SqlStore, clock: SetClock) -> None:
    scopes, models = frozenset({Scope.ADMIN}), ("claude-*", "qwen?")
    secret, key = await made(store, scopes=scopes, models=models, lifetime_us=DAY_US)
    assert await store.find_key(secret.digest) == key
    assert (key.scopes, key.models, key.expires_us) == (scopes, models, clock.wall + DAY_US)
    assert key.workspace.id == DEFAULT_WORKSPACE
    assert await store.has_keys()


async def test_an_unknown_digest_finds_nothing(store: SqlStore) -> None:
    await made(store)
    assert await store.find_key(new_key().digest) is None
    assert await store.find_key("0" * 64) is None


async def test_a_key_of_no_workspace_is_refused(store: SqlStore) -> None:
    with pytest.raises(NoSuchWorkspace, match="no workspace away"):
        await made(store, workspace="away")
    with pytest.raises(NoSuchWorkspace):
        await store.keys("away")
    assert not await store.has_keys()


async def test_keys_are_listed_by_workspace(store: SqlStore) -> None:
    await store.create_workspace("wrkspc_x", "x", WorkspaceLimits())
    (_, one), (_, other) = await made(store), await made(store, workspace="x")
    assert await store.keys("x") == [other]
    assert await store.keys("default") == [one]
    assert {key.id for key in await store.keys()} == {one.id, other.id}


async def test_a_revoked_key_stays_known_and_the_first_time_counts(store: SqlStore, clock: SetClock) -> None:
    secret, key = await made(store)
    revoked = await store.revoke_key(key.id)
    assert revoked.revoked_us == clock.wall
    clock.pass_wall(HOUR_US)
    assert await store.revoke_key(key.id) == revoked
    assert await store.find_key(secret.digest) == revoked
    assert not revoked.is_valid(clock.wall)
    assert await store.has_keys()
    with pytest.raises(NoSuchKey, match="no key away"):
        await store.revoke_key("away")


async def test_a_rotated_keys_successor_is_like_it_and_the_key_ends_after_its_grace(
    store: SqlStore, clock: SetClock
) -> None:
    secret, key = await made(store, scopes=frozenset({Scope.BATCHES}), models=("m*",), lifetime_us=90 * DAY_US)
    clock.pass_wall(30 * DAY_US)
    successor_secret, successor = await rotated(store, key)
    like = (successor.name, successor.workspace, successor.scopes, successor.models)
    assert like == (key.name, key.workspace, key.scopes, key.models)
    assert successor.expires_us == clock.wall + 90 * DAY_US
    old, new = await store.find_key(secret.digest), await store.find_key(successor_secret.digest)
    assert old is not None
    assert new == successor
    assert old.is_valid(clock.wall + HOUR_US - 1)
    assert not old.is_valid(clock.wall + HOUR_US)


async def test_a_grace_never_lengthens_a_keys_life(store: SqlStore, clock: SetClock) -> None:
    secret, key = await made(store, lifetime_us=HOUR_US)
    await rotated(store, key, grace_us=DAY_US)
    old = await store.find_key(secret.digest)
    assert old is not None
    assert old.expires_us == clock.wall + HOUR_US


async def test_a_key_that_is_over_is_not_rotated(store: SqlStore, clock: SetClock) -> None:
    _, revoked = await made(store)
    await store.revoke_key(revoked.id)
    _, expired = await made(store, lifetime_us=1)
    clock.pass_wall(1)
    for key in (revoked, expired):
        with pytest.raises(NoSuchKey, match="revoked or has expired"):
            await rotated(store, key)
    with pytest.raises(NoSuchKey):
        await store.rotate_key(Rotation(new_id(KEY), "away", 0, new_key().digest))


async def test_two_keys_never_share_a_digest(store: SqlStore) -> None:
    secret, _ = await made(store)
    with pytest.raises(IntegrityError):
        await store.create_key(a_key(secret))


async def test_the_store_holds_no_text_of_a_key(store: SqlStore, tmp_path: Path) -> None:
    secret, key = await made(store)
    _, successor = await rotated(store, key)
    await store.revoke_key(successor.id)
    digits = secret.reveal()[3:20].encode()
    assert all(digits not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


async def test_looking_for_a_key_writes_nothing_and_takes_the_same_work_for_an_unknown_one(
    store: SqlStore, tmp_path: Path
) -> None:
    secret, _ = await made(store)
    await store.find_key(secret.digest)
    seen: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await store.find_key(secret.digest)
        known, seen[:] = list(seen), []
        await store.find_key(new_key().digest)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert [statement for statement, _ in seen] == [statement for statement, _ in known]
    assert not any(statement.startswith(("INSERT", "UPDATE", "DELETE")) for statement, _ in seen)
    conn = sqlite3.connect(tmp_path / "lowtide.db")
    for statement, parameters in seen:
        if statement.startswith("SELECT"):
            plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            assert not [line for line in plan if line.startswith("SCAN")]
    conn.close()
