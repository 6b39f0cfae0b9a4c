"""The ports of access: who may call, in whose workspace, and how often.

`AccessStore` keeps workspaces and keys; a key is known to it by its digest alone. Keys are revoked, never removed: once
one exists, a server stays closed to those who bring none. `CallBudget` counts calls: it stands apart from the store so
that each API process can count in memory, or borrow blocks of calls from a count that all share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lowtide.domain.errors import LowtideError
from lowtide.domain.keys import Scope


class NameTaken(LowtideError):
    """There is a workspace of this name."""


class NoSuchWorkspace(LowtideError):
    """There is no workspace of this name."""


class NoSuchKey(LowtideError):
    """There is no key with this id, or it is no longer one that could be used."""


@dataclass(frozen=True, slots=True)
class WorkspaceLimits:
    """What a workspace may do at once; None is the server's own limit, 0 is no limit."""

    calls_per_minute_max: int | None = None
    queued_requests_max: int | None = None


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant."""

    id: str
    name: str
    created_us: int
    limits: WorkspaceLimits


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored. `models` are the patterns of the models it may use; none for all."""

    id: str
    name: str
    workspace: Workspace
    scopes: frozenset[Scope]
    models: tuple[str, ...]
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    digest: str = field(repr=False)

    def is_valid(self, now_us: int) -> bool:
        """Tell whether calls may be made with it: it is neither revoked nor past its time."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored in the workspace of this name."""

    id: str
    name: str
    workspace: str
    scopes: frozenset[Scope]
    models: tuple[str, ...]
    lifetime_us: int | None
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key's successor, with all that the key has but the digest; the key itself stays valid for `grace_us`.

    The successor lives as long as the key was to live from its own creation.
    """

    id: str
    of: str
    grace_us: int
    digest: str = field(repr=False)


class AccessStore(Protocol):
    """Workspaces and their keys. Every operation may raise StoreUnavailable."""

    async def create_workspace(self, workspace_id: str, name: str, limits: WorkspaceLimits) -> Workspace:
        """Make a workspace; raises NameTaken."""
        ...

    async def workspaces(self) -> Sequence[Workspace]:
        """Return all workspaces, oldest first."""
        ...

    async def set_limits(self, name: str, limits: WorkspaceLimits) -> Workspace:
        """Set a workspace's limits; raises NoSuchWorkspace."""
        ...

    async def create_key(self, key: NewKey) -> Key:
        """Store a key; raises NoSuchWorkspace."""
        ...

    async def keys(self, workspace: str | None = None) -> Sequence[Key]:
        """Return the keys of the workspace of this name, or all, oldest first; raises NoSuchWorkspace."""
        ...

    async def revoke_key(self, key_id: str) -> Key:
        """Make a key useless for good; one that is already revoked stays as it is. Raises NoSuchKey."""
        ...

    async def rotate_key(self, rotation: Rotation) -> Key:
        """Store a key's successor and end the key after its grace; raises NoSuchKey if it is expired or revoked."""
        ...

    async def find_key(self, digest: str) -> Key | None:
        """Return the key with this digest, whatever its state; an unknown one takes the same work."""
        ...

    async def has_keys(self) -> bool:
        """Tell whether a key was ever made."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one call: whether it may go on, and how the budget stands.

    `wait_s` is when a refused call may be made again, `full_s` when the whole budget is there again.
    """

    granted: bool
    limit: int
    remaining: int
    wait_s: float
    full_s: float


class CallBudget(Protocol):
    """Counts the calls of each workspace."""

    async def take(self, workspace: str, per_minute: int) -> Taken:
        """Take one call from the budget of a workspace that has `per_minute` calls a minute."""
        ...
