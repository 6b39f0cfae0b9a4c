"""The store of workspaces and keys over SQL: each operation of the port as one transaction or one read."""

from collections.abc import Sequence

from lowtide import faults
from lowtide.ports.access import Key, NewKey, Rotation, Workspace, WorkspaceLimits
from lowtide.storage import access
from lowtide.storage.transactions import Transactions

ACCESS = faults.point("store.access", "a change of a workspace or of a key is committed")


class SqlAccess(Transactions):
    """The operations of `AccessStore`, for every SQL database."""

    async def create_workspace(self, workspace_id: str, name: str, limits: WorkspaceLimits) -> Workspace:
        return await self._write(ACCESS, access.create_workspace, workspace_id, name, limits)

    async def workspaces(self) -> Sequence[Workspace]:
        return await self._read(access.workspaces)

    async def set_limits(self, name: str, limits: WorkspaceLimits) -> Workspace:
        return await self._write(ACCESS, access.set_limits, name, limits)

    async def create_key(self, key: NewKey) -> Key:
        return await self._write(ACCESS, access.create_key, key)

    async def keys(self, workspace: str | None = None) -> Sequence[Key]:
        return await self._read(access.keys, workspace)

    async def revoke_key(self, key_id: str) -> Key:
        return await self._write(ACCESS, access.revoke_key, key_id)

    async def rotate_key(self, rotation: Rotation) -> Key:
        return await self._write(ACCESS, access.rotate_key, rotation)

    async def find_key(self, digest: str) -> Key | None:
        return await self._read(access.find_key, digest)

    async def has_keys(self) -> bool:
        return await self._read(access.has_keys)
