"""What the commands on keys and workspaces do: open the store that the settings name, beside a server that may run.

A key's text is made here and handed to the command that shows it, once; the store gets its digest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lowtide.app.compose import opened_store
from lowtide.app.directory import DATABASE, prepare
from lowtide.app.load import load
from lowtide.app.settings import Settings
from lowtide.domain.errors import SettingsError, StorageError
from lowtide.domain.ids import KEY, WORKSPACE, new_id
from lowtide.domain.keys import Scope, Secret, new_key
from lowtide.ports.access import (
    AccessStore,
    Key,
    NameTaken,
    NewKey,
    NoSuchKey,
    NoSuchWorkspace,
    Rotation,
    Workspace,
    WorkspaceLimits,
)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was just made: its text, and whether it is the first of this server."""

    secret: Secret
    key: Key
    first: bool = False


def on_store(
    flags: Mapping[str, Any],
    config: Path | None,
    work: Callable[[AccessStore], Awaitable[Value]],
    *,
    make: bool = False,
) -> Value:
    """Do `work` on the store and return what it returns; `make` makes the data directory. Raises SettingsError."""
    settings = load(flags, config)
    data = prepare(settings.data) if make else _existing(settings)
    try:
        return asyncio.run(_do(settings.model_copy(update={"data": data}), work))
    except (NameTaken, NoSuchWorkspace, NoSuchKey) as error:
        raise SettingsError(str(error)) from None
    except StorageError as error:
        raise SettingsError(f"The database in {data} cannot be used: {error}.") from None


async def make_key(store: AccessStore, new: NewKey, secret: Secret) -> Made:
    """Store a key."""
    first = not await store.has_keys()
    return Made(secret, await store.create_key(new), first)


def new_key_of(
    workspace: str, name: str, scopes: frozenset[Scope], models: tuple[str, ...], lifetime_us: int | None
) -> tuple[NewKey, Secret]:
    """Return a key to be stored, and its text."""
    secret = new_key()
    return NewKey(new_id(KEY), name, workspace, scopes, models, lifetime_us, secret.digest), secret


async def rotate_key(store: AccessStore, key_id: str, grace_us: int) -> tuple[Made, Key]:
    """Make a key's successor; returns it and the key as it now is."""
    secret = new_key()
    made = await store.rotate_key(Rotation(new_id(KEY), key_id, grace_us, secret.digest))
    old = next(key for key in await store.keys(made.workspace.name) if key.id == key_id)
    return Made(secret, made), old


async def make_workspace(store: AccessStore, name: str, limits: WorkspaceLimits) -> Workspace:
    """Make a workspace."""
    return await store.create_workspace(new_id(WORKSPACE), name, limits)


async def change_limits(store: AccessStore, name: str, changes: Mapping[str, int | None]) -> Workspace:
    """Set those limits of a workspace that `changes` names, and return it as it now is."""
    found = next((each for each in await store.workspaces() if each.name == name), None)
    if found is None:
        raise NoSuchWorkspace(f"There is no workspace {name}.")
    return await store.set_limits(name, replace(found.limits, **changes)) if changes else found


async def _do(settings: Settings, work: Callable[[AccessStore], Awaitable[Value]]) -> Value:
    async with opened_store(settings) as store:
        return await work(store)


def _existing(settings: Settings) -> Path:
    data = settings.data.expanduser().absolute()
    if not (data / DATABASE).exists():
        raise SettingsError(f"There is no Lowtide in {data}; name the data directory of a server with --data.")
    return data
