"""workspace-walls: on every route, another workspace's id answers exactly as a missing one, whatever key is brought.

The routes are asked of the application itself, so that a new one cannot be forgotten.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, event

from contract.serving import Answer, Served, requests
from lowtide.api.credentials import RECHECK_S
from lowtide.domain.ids import BATCH, new_id
from lowtide.domain.keys import Scope, new_key
from support.access import Holder, holder

PATH = "/v1/messages/batches"
VOLATILE = frozenset({"date", "request-id"})
Headers = dict[str, str | None]


@dataclass(frozen=True)
class House:
    """A server with two workspaces, of which the first has a batch in each state."""

    served: Served
    owner: Holder
    other: Holder
    batches: dict[str, str]
    strangers: dict[str, Headers]
    limited: dict[str, Headers]

    def routes(self, *, of_batches: bool) -> list[tuple[str, str]]:
        """Return method and path of every route, of those with a batch's id in them or of the others."""
        app: Any = self.served._server.config.app
        found = [(method, route.path) for route in app.routes for method in route.endpoint._handlers]
        return [each for each in found if ("{batch_id}" in each[1]) is of_batches]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Served(tmp_path_factory.mktemp("walls"), upkeep=False) as served:
        store = served.store

        def made(workspace: str, **changes: Any) -> Holder:
            return served.run(holder(store, workspace, **changes))

        owner, other = made("owner"), made("other")
        batches = {name: served.create("a", "b", headers=owner.headers) for name in ("runs", "canceling")}
        served.call("POST", f"{PATH}/{batches['canceling']}/cancel", headers=owner.headers)
        batches["ended"] = served.create("a", "b", headers=owner.headers)
        _finish(served, batches["ended"])
        batches["deleted"] = served.create("a", "b", headers=owner.headers)
        _finish(served, batches["deleted"])
        served.call("DELETE", f"{PATH}/{batches['deleted']}", headers=owner.headers)
        revoked, expired = made("owner"), made("owner", lifetime_us=1)
        served.run(store.revoke_key(revoked.key.id))
        typo = owner.text[:-1] + ("0" if owner.text[-1] != "0" else "1")
        texts = {"garbage": "any", "typo": typo, "unknown": new_key().reveal()}
        texts |= {"expired": expired.text, "revoked": revoked.text}
        strangers: dict[str, Headers] = {"none": {"x-api-key": None}}
        for name, text in texts.items():
            strangers[name] = {"x-api-key": text}
            strangers[f"{name}, as a bearer"] = {"x-api-key": None, "authorization": f"Bearer {text}"}
        limited = {scope.value: made("owner", scopes=frozenset({scope})).headers for scope in Scope}
        yield House(served, owner, other, batches, strangers, limited)


def _finish(served: Served, batch_id: str) -> None:
    """End a batch of any workspace."""
    served.run(served._commit(batch_id, {}, (), None))


def told(answer: Answer, batch_id: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return all that an answer says, but for the id that was asked for and the call's own."""
    body = answer.body.replace(batch_id.encode(), b"ID")
    body = re.sub(rb"req_01\w{22}", b"REQUEST", body)
    headers = [(name, value.replace(batch_id, "ID")) for name, value in answer.lines if name not in VOLATILE]
    return answer.status, headers, body


def ask(house: House, route: tuple[str, str], batch_id: str, headers: Headers) -> Answer:
    method, path = route
    return house.served.call(method, path.replace("{batch_id}", batch_id), headers=headers)


def test_there_are_routes_to_walk(house: House) -> None:
    paths = {path for _, path in house.routes(of_batches=True)}
    assert paths >= {f"{PATH}/{{batch_id}}", f"{PATH}/{{batch_id}}/results", "/lowtide/batches/{batch_id}/events"}


def test_another_workspaces_batch_is_as_missing_on_every_route(house: House) -> None:
    for route in house.routes(of_batches=True):
        missing = new_id(BATCH)
        expected = told(ask(house, route, missing, house.other.headers), missing)
        assert expected[0] == 404, route
        for state, batch_id in house.batches.items():
            for headers in (house.other.headers, house.other.bearer):
                assert told(ask(house, route, batch_id, headers), batch_id) == expected, (route, state)


def test_a_stranger_is_refused_on_every_route_whatever_it_asks_for(house: House) -> None:
    for route in house.routes(of_batches=True):
        for name, headers in house.strangers.items():
            missing = new_id(BATCH)
            expected = told(ask(house, route, missing, headers), missing)
            assert expected[0] == 401, (route, name)
            for state, batch_id in house.batches.items():
                assert told(ask(house, route, batch_id, headers), batch_id) == expected, (route, name, state)


def test_a_key_without_the_scope_is_refused_on_every_route_whatever_it_asks_for(house: House) -> None:
    for route in house.routes(of_batches=True):
        for scope in (Scope.MESSAGES, Scope.ADMIN):
            missing = new_id(BATCH)
            headers = house.limited[scope]
            expected = told(ask(house, route, missing, headers), missing)
            assert expected[0] == 403, route
            for batch_id in house.batches.values():
                assert told(ask(house, route, batch_id, headers), batch_id) == expected, route


def test_no_batch_is_looked_up_for_who_may_not_call(house: House) -> None:
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if re.search(r"(FROM|UPDATE|INTO) (batch|creation|chunk)\b", statement):
            seen.append(statement)

    refused: Sequence[Headers] = [*house.strangers.values(), house.limited[Scope.MESSAGES]]
    event.listen(Engine, "before_cursor_execute", note)
    try:
        for route in house.routes(of_batches=True):
            for headers in refused:
                ask(house, route, house.batches["ended"], headers)
        assert seen == []
        ask(house, ("GET", f"{PATH}/{{batch_id}}"), house.batches["ended"], house.owner.headers)
        assert seen != []
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_every_other_route_refuses_strangers_but_for_the_two_that_say_whether_the_server_lives(house: House) -> None:
    for method, path in house.routes(of_batches=False):
        for name, headers in house.strangers.items():
            from_afar = {"x-forwarded-for": "192.0.2.1", **headers}
            answer = house.served.call(method, path.replace("{model_id:path}", "m"), headers=from_afar)
            if path in {"/healthz", "/readyz"}:
                assert answer.status == 200
                continue
            assert answer.status == 401, (method, path, name)
            assert "anthropic-organization-id" not in answer.headers
            assert "anthropic-workspace-id" not in answer.headers


def test_a_listing_shows_ones_own_batches_alone(house: House) -> None:
    own = house.served.call("GET", PATH, headers=house.owner.headers).json()
    assert {each["id"] for each in own["data"]} == set(house.batches.values()) - {house.batches["deleted"]}
    empty = house.served.call("GET", PATH, headers=house.other.headers)
    assert empty.json()["data"] == []
    for cursor in ("before_id", "after_id"):
        foreign = house.served.call("GET", f"{PATH}?{cursor}={house.batches['runs']}", headers=house.other.headers)
        unknown = house.served.call("GET", f"{PATH}?{cursor}={new_id(BATCH)}", headers=house.other.headers)
        assert foreign.body == unknown.body == empty.body


def test_an_idempotency_key_means_nothing_in_another_workspace(house: House) -> None:
    keyed: Headers = {"idempotency-key": "same"}
    first = house.served.create("x", headers=house.owner.headers | keyed)
    house.batches["keyed"] = first
    other = house.served.create("x", headers=house.other.headers | keyed)
    assert first != other
    assert house.served.create("x", headers=house.owner.headers | keyed) == first
    answer = house.served.call("POST", PATH, requests("another"), house.other.headers | keyed)
    assert answer.status == 422


def test_a_key_names_its_own_workspace_alone(house: House) -> None:
    wanted: Headers = {"anthropic-workspace-id": house.owner.key.workspace.id}
    assert house.served.call("GET", PATH, headers=house.owner.headers | wanted).status == 200
    answer = house.served.call("GET", PATH, headers=house.other.headers | wanted)
    assert answer.error[0] == 400
    assert answer.headers["anthropic-workspace-id"] == house.other.key.workspace.id


def test_metrics_are_open_to_this_machine_and_need_the_admin_scope_from_elsewhere(house: House) -> None:
    afar: Headers = {"x-forwarded-for": "192.0.2.1"}
    assert house.served.call("GET", "/metrics", headers={"x-api-key": None}).status == 200
    assert house.served.call("GET", "/metrics", headers=house.limited[Scope.ADMIN] | afar).status == 200
    assert house.served.call("GET", "/metrics", headers=house.limited[Scope.BATCHES] | afar).status == 403


def test_an_answer_is_remembered_for_seconds_only() -> None:
    assert RECHECK_S <= 5
