"""Workspaces and keys: their statements, and what each operation does in its transaction.

A key's text never comes here, only its digest. Rows are never removed: a key that is revoked or past its time stays, so
that a server with keys never turns into one without. An operation that is repeated after a lost answer finds what
stands, by the id that its caller chose.
"""

from collections.abc import Sequence
from hmac import compare_digest
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update

from lowtide.domain.keys import Scope
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
from lowtide.storage.access_tables import api_key, workspace
from lowtide.storage.moments import Moment

_NOBODY: Final = "0" * 64
"""What the digest of an unknown key is compared with."""

_WORKSPACE_COLUMNS = (
    workspace.c.id.label("workspace_id"),
    workspace.c.name.label("workspace_name"),
    workspace.c.created_us.label("workspace_created_us"),
    workspace.c.calls_per_minute_max,
    workspace.c.queued_requests_max,
)
LIST_WORKSPACES: Select[Any] = select(*_WORKSPACE_COLUMNS).order_by(workspace.c.created_us, workspace.c.id)
FIND_WORKSPACE: Select[Any] = select(*_WORKSPACE_COLUMNS).where(workspace.c.name == bindparam("name"))
FIND_WORKSPACE_BY_ID: Select[Any] = select(*_WORKSPACE_COLUMNS).where(workspace.c.id == bindparam("id"))
ADD_WORKSPACE = insert(workspace)
SET_LIMITS = (
    update(workspace)
    .values(calls_per_minute_max=bindparam("calls"), queued_requests_max=bindparam("queued"))
    .where(workspace.c.id == bindparam("of_id"))
)

_KEYS: Select[Any] = select(api_key, *_WORKSPACE_COLUMNS).join(workspace, workspace.c.id == api_key.c.workspace)
LIST_KEYS = _KEYS.order_by(api_key.c.created_us, api_key.c.id)
LIST_KEYS_OF = LIST_KEYS.where(api_key.c.workspace == bindparam("of_workspace"))
FIND_KEY = _KEYS.where(api_key.c.id == bindparam("id"))
FIND_KEY_BY_DIGEST = _KEYS.where(api_key.c.digest == bindparam("digest"))
ANY_KEY = select(api_key.c.id).limit(1)
ADD_KEY = insert(api_key)
REVOKE = (
    update(api_key)
    .values(revoked_us=bindparam("now_us"))
    .where(api_key.c.id == bindparam("of_id"), api_key.c.revoked_us.is_(None))
)
SET_EXPIRY = update(api_key).values(expires_us=bindparam("until_us")).where(api_key.c.id == bindparam("of_id"))

_encode = msgspec.json.Encoder().encode
_decode_models = msgspec.json.Decoder(tuple[str, ...]).decode


def create_workspace(conn: Connection, now: Moment, workspace_id: str, name: str, limits: WorkspaceLimits) -> Workspace:
    """Make a workspace of a new name."""
    made = conn.execute(FIND_WORKSPACE_BY_ID, {"id": workspace_id}).one_or_none()
    if made is not None:
        return _to_workspace(made)
    if conn.execute(FIND_WORKSPACE, {"name": name}).first() is not None:
        raise NameTaken(f"There is a workspace {name} already.")
    values = {"id": workspace_id, "name": name, "created_us": now.wall_us}
    conn.execute(
        ADD_WORKSPACE,
        values
        | {"calls_per_minute_max": limits.calls_per_minute_max, "queued_requests_max": limits.queued_requests_max},
    )
    return Workspace(workspace_id, name, now.wall_us, limits)


def workspaces(conn: Connection) -> Sequence[Workspace]:
    """Return all workspaces, oldest first."""
    return [_to_workspace(row) for row in conn.execute(LIST_WORKSPACES)]


def set_limits(conn: Connection, _now: Moment, name: str, limits: WorkspaceLimits) -> Workspace:
    """Set both limits of a workspace."""
    found = _workspace(conn, name)
    values = {"calls": limits.calls_per_minute_max, "queued": limits.queued_requests_max}
    conn.execute(SET_LIMITS, values | {"of_id": found.id})
    return Workspace(found.id, found.name, found.created_us, limits)


def create_key(conn: Connection, now: Moment, new: NewKey) -> Key:
    """Store a key of a workspace that exists."""
    made = conn.execute(FIND_KEY, {"id": new.id}).one_or_none()
    if made is not None:
        return _to_key(made)
    values = {
        "id": new.id,
        "workspace": _workspace(conn, new.workspace).id,
        "name": new.name,
        "digest": new.digest,
        "scopes": ",".join(sorted(new.scopes)),
        "models": _encode(new.models).decode(),
        "created_us": now.wall_us,
        "expires_us": None if new.lifetime_us is None else now.wall_us + new.lifetime_us,
    }
    conn.execute(ADD_KEY, values)
    return _key(conn, new.id)


def keys(conn: Connection, workspace_name: str | None) -> Sequence[Key]:
    """Return the keys of a workspace, or all, oldest first."""
    if workspace_name is None:
        return [_to_key(row) for row in conn.execute(LIST_KEYS)]
    found = _workspace(conn, workspace_name)
    return [_to_key(row) for row in conn.execute(LIST_KEYS_OF, {"of_workspace": found.id})]


def revoke_key(conn: Connection, now: Moment, key_id: str) -> Key:
    """Revoke a key; the first time counts."""
    conn.execute(REVOKE, {"of_id": key_id, "now_us": now.wall_us})
    return _key(conn, key_id)


def rotate_key(conn: Connection, now: Moment, rotation: Rotation) -> Key:
    """Store a successor and let the key end after its grace, or when it would have ended anyway."""
    made = conn.execute(FIND_KEY, {"id": rotation.id}).one_or_none()
    if made is not None:
        return _to_key(made)
    old = _key(conn, rotation.of)
    if not old.is_valid(now.wall_us):
        raise NoSuchKey(f"The key {old.id} is revoked or has expired; make a new one.")
    lifetime_us = None if old.expires_us is None else old.expires_us - old.created_us
    new = NewKey(rotation.id, old.name, old.workspace.name, old.scopes, old.models, lifetime_us, rotation.digest)
    until_us = now.wall_us + rotation.grace_us
    until_us = until_us if old.expires_us is None else min(until_us, old.expires_us)
    conn.execute(SET_EXPIRY, {"of_id": old.id, "until_us": until_us})
    return create_key(conn, now, new)


def find_key(conn: Connection, digest: str) -> Key | None:
    """Return the key with this digest. One look by index and one comparison, whether it is there or not."""
    row = conn.execute(FIND_KEY_BY_DIGEST, {"digest": digest}).one_or_none()
    same = compare_digest(_NOBODY if row is None else row.digest, digest)
    return _to_key(row) if row is not None and same else None


def has_keys(conn: Connection) -> bool:
    """Tell whether there is a key, in whatever state."""
    return conn.execute(ANY_KEY).first() is not None


def _workspace(conn: Connection, name: str) -> Workspace:
    row = conn.execute(FIND_WORKSPACE, {"name": name}).one_or_none()
    if row is None:
        raise NoSuchWorkspace(f"There is no workspace {name}.")
    return _to_workspace(row)


def _key(conn: Connection, key_id: str) -> Key:
    row = conn.execute(FIND_KEY, {"id": key_id}).one_or_none()
    if row is None:
        raise NoSuchKey(f"There is no key {key_id}.")
    return _to_key(row)


def _to_workspace(row: Row[Any]) -> Workspace:
    limits = WorkspaceLimits(row.calls_per_minute_max, row.queued_requests_max)
    return Workspace(row.workspace_id, row.workspace_name, row.workspace_created_us, limits)


def _to_key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        workspace=_to_workspace(row),
        scopes=frozenset(map(Scope, row.scopes.split(","))),
        models=_decode_models(row.models),
        created_us=row.created_us,
        expires_us=row.expires_us,
        revoked_us=row.revoked_us,
        digest=row.digest,
    )
