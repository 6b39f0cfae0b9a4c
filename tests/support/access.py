"""Keys and workspaces for tests, made through the port."""

from dataclasses import dataclass
from typing import Any

from lowtide.domain.ids import KEY, WORKSPACE, new_id
from lowtide.domain.keys import Scope, new_key
from lowtide.ports.access import AccessStore, Key, NewKey, WorkspaceLimits


@dataclass(frozen=True)
class Holder:
    """A key and its text."""

    text: str
    key: Key

    @property
    def headers(self) -> dict[str, str | None]:
        return {"x-api-key": self.text, "authorization": None}

    @property
    def bearer(self) -> dict[str, str | None]:
        return {"x-api-key": None, "authorization": f"Bearer {self.text}"}


async def holder(store: AccessStore, workspace: str = "default", **changes: Any) -> Holder:
    """Return a new key of a workspace, which is made if it is not there; by default it has every scope."""
    if workspace not in {each.name for each in await store.workspaces()}:
        await store.create_workspace(new_id(WORKSPACE), workspace, WorkspaceLimits())
    secret = new_key()
    values: dict[str, Any] = {
        "id": new_id(KEY),
        "name": "key",
        "workspace": workspace,
        "scopes": frozenset(Scope),
        "models": (),
        "lifetime_us": None,
        "digest": secret.digest,
    }
    return Holder(secret.reveal(), await store.create_key(NewKey(**values | changes)))
