"""Who calls: found in a real store, remembered for two seconds, within bounds, without a write."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from starlette.datastructures import Headers

from lowtide.api import credentials
from lowtide.api.credentials import RECHECK_S, Caller, Credentials
from lowtide.domain.errors import ContractError, Unauthorized
from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.domain.keys import Scope, new_key
from lowtide.ports.access import WorkspaceLimits
from lowtide.storage.sqlite import SqliteStore
from support.access import Holder, holder
from support.lab import migrate
from support.steps import SetClock


class Desk:
    """The part under test, with clocks that a test moves and a count of the looks at the database."""

    def __init__(self, store: SqliteStore, clock: SetClock) -> None:
        self.store = store
        self.clock = clock
        self.now_s = 0.0
        self.credentials = Credentials(store, clock, lambda: self.now_s)
        self.looks = 0
        self.writes = 0

    async def identify(self, **headers: str) -> Caller:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.credentials.identify(Headers(given))

    async def refusal(self, **headers: str) -> str:
        with pytest.raises(Unauthorized) as caught:
            await self.identify(**headers)
        assert caught.value.status == 401
        return caught.value.message

    def note(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.looks += statement.startswith("SELECT")
        self.writes += statement.startswith(("INSERT", "UPDATE", "DELETE"))


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "lowtide.db"
    asyncio.run(migrate(path, SetClock()))
    return path


@pytest.fixture
async def desk(migrated: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copy(migrated, tmp_path / "lowtide.db")
    clock = SetClock()
    store = SqliteStore(tmp_path / "lowtide.db", clock)
    await store.open()
    made = Desk(store, clock)
    event.listen(Engine, "before_cursor_execute", made.note)
    yield made
    event.remove(Engine, "before_cursor_execute", made.note)
    await store.close()


async def test_without_a_key_every_call_is_the_default_workspaces(desk: Desk) -> None:
    caller = await desk.identify(x_api_key="any")
    assert (caller.workspace, caller.scopes, caller.key_id) == (DEFAULT_WORKSPACE, frozenset(Scope), None)
    assert (await desk.identify()).workspace == DEFAULT_WORKSPACE
    assert (await desk.identify(authorization="Bearer any")).credential == caller.credential


async def test_the_first_key_closes_the_door_within_two_seconds_and_for_good(desk: Desk) -> None:
    await desk.identify()
    made = await holder(desk.store)
    desk.now_s = RECHECK_S
    assert await desk.refusal() == "x-api-key header is required"
    await desk.store.revoke_key(made.key.id)
    desk.now_s += 10 * RECHECK_S
    assert await desk.refusal(x_api_key="any") == "invalid x-api-key"


async def test_a_key_leads_to_its_workspace_in_either_form(desk: Desk) -> None:
    made = await holder(desk.store, "research", scopes=frozenset({Scope.MESSAGES}), models=("m*",))
    await desk.store.set_limits("research", WorkspaceLimits(7, 9))
    caller = await desk.identify(x_api_key=made.text)
    assert caller == Caller(
        made.key.workspace.id, made.key.digest, made.key.scopes, ("m*",), made.key.id, WorkspaceLimits(7, 9)
    )
    assert await desk.identify(authorization=f"Bearer {made.text}") == caller
    assert await desk.identify(authorization=f"bearer  {made.text} ") == caller


async def test_each_refusal_has_the_contracts_text_and_nothing_more(desk: Desk) -> None:
    good = await holder(desk.store)
    expired = await holder(desk.store, lifetime_us=1)
    revoked = await holder(desk.store)
    await desk.store.revoke_key(revoked.key.id)
    desk.clock.pass_wall(1)
    typo = good.text[:-1] + ("0" if good.text[-1] != "0" else "1")
    for text in ("any", typo, new_key().reveal(), expired.text, revoked.text):
        assert await desk.refusal(x_api_key=text) == "invalid x-api-key"
        assert await desk.refusal(authorization=f"Bearer {text}") == "Invalid bearer token"
    for headers in ({}, {"x_api_key": ""}, {"authorization": "Bearer "}, {"authorization": f"Basic {good.text}"}):
        assert await desk.refusal(**headers) == "x-api-key header is required"


async def test_the_log_says_why_and_never_what(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []

    class Log:
        def info(self, _event: str, *, reason: str, key: str | None) -> None:
            told.append((reason, key))

    monkeypatch.setattr(credentials, "_log", Log())
    revoked, expired = await holder(desk.store), await holder(desk.store, lifetime_us=1)
    await desk.store.revoke_key(revoked.key.id)
    desk.clock.pass_wall(1)
    for text in ("any", new_key().reveal(), revoked.text, expired.text):
        await desk.refusal(x_api_key=text)
    assert told == [
        ("malformed", None),
        ("unknown", None),
        ("revoked", revoked.key.id),
        ("expired", expired.key.id),
    ]


async def test_a_poll_costs_no_look_at_the_database_and_none_ever_costs_a_write(desk: Desk) -> None:
    made = await holder(desk.store)
    desk.writes = 0
    await desk.identify(x_api_key=made.text)
    desk.looks = 0
    for _ in range(10):
        await desk.identify(x_api_key=made.text)
    assert (desk.looks, desk.writes) == (0, 0)
    desk.now_s += RECHECK_S
    await desk.identify(x_api_key=made.text)
    assert desk.looks > 0
    assert desk.writes == 0


async def test_a_malformed_key_costs_no_look_at_the_database(desk: Desk) -> None:
    made = await holder(desk.store)
    await desk.identify(x_api_key=made.text)
    desk.looks = 0
    await desk.refusal(x_api_key=made.text[:-3])
    assert desk.looks == 0


async def test_a_revoked_key_is_refused_within_two_seconds(desk: Desk) -> None:
    made = await holder(desk.store)
    await desk.identify(x_api_key=made.text)
    await desk.store.revoke_key(made.key.id)
    desk.now_s += RECHECK_S
    await desk.refusal(x_api_key=made.text)


async def test_a_key_expires_on_time_although_it_is_remembered(desk: Desk) -> None:
    made = await holder(desk.store, lifetime_us=1000)
    await desk.identify(x_api_key=made.text)
    desk.clock.pass_wall(1000)
    await desk.refusal(x_api_key=made.text)


async def test_made_up_keys_are_remembered_within_a_bound_and_push_no_real_one_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_UNKNOWN_MAX", 8)
    desk.credentials = Credentials(desk.store, desk.clock, lambda: desk.now_s)
    made = await holder(desk.store)
    await desk.identify(x_api_key=made.text)
    made_up = [new_key().reveal() for _ in range(20)]
    for text in made_up:
        await desk.refusal(x_api_key=text)
    assert len(desk.credentials._unknown._kept) == 8
    desk.looks = 0
    await desk.identify(x_api_key=made.text)
    await desk.refusal(x_api_key=made_up[-1])
    assert desk.looks == 0


async def test_the_name_of_another_workspace_is_refused(desk: Desk) -> None:
    one, other = await holder(desk.store, "one"), await holder(desk.store, "other")
    caller = await desk.identify(x_api_key=one.text)
    caller.require_workspace(None)
    caller.require_workspace(one.key.workspace.id)
    with pytest.raises(ContractError) as caught:
        caller.require_workspace(other.key.workspace.id)
    assert (caught.value.status, caught.value.message) == (
        400,
        "anthropic-workspace-id: does not match the workspace of this API key",
    )


async def test_nothing_that_is_printed_of_a_caller_or_a_key_has_its_digest(desk: Desk) -> None:
    made: Holder = await holder(desk.store)
    caller = await desk.identify(x_api_key=made.text)
    for shown in (repr(caller), repr(made.key)):
        assert made.key.digest not in shown
        assert made.text not in shown
