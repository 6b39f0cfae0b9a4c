"""A key that is over ends what it began: a stream is broken off within seconds, never finished as if it were whole."""

import http.client
from pathlib import Path

import pytest

from contract.serving import Served
from lowtide.api import credentials, door
from support.access import holder


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge a key at each piece that is sent."""
    monkeypatch.setattr(door, "RECHECK_S", 0.0)
    monkeypatch.setattr(credentials, "RECHECK_S", 0.0)


def test_a_stream_of_events_is_broken_off_when_its_key_is_revoked(tmp_path: Path) -> None:
    with Served(tmp_path, upkeep=False) as served:
        keys = [served.run(holder(served.store)) for _ in range(2)]
        batch_id = served.create("a", "b", "c", headers=keys[0].headers)
        streams = []
        for key in keys:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            connection.request("GET", f"/lowtide/batches/{batch_id}/events", headers={"x-api-key": key.text})
            response = connection.getresponse()
            assert response.status == 200
            assert response.readline()
            streams.append((connection, response))
        served.run(served.store.revoke_key(keys[0].key.id))
        served.finish(batch_id)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            streams[0][1].read()
        assert b"ended" in streams[1][1].read()
        for connection, _ in streams:
            connection.close()


def test_an_answer_goes_on_while_its_key_is_valid(tmp_path: Path) -> None:
    with Served(tmp_path, upkeep=False) as served:
        key = served.run(holder(served.store))
        batch_id = served.create("a", headers=key.headers)
        served.finish(batch_id)
        answer = served.call("GET", f"/v1/messages/batches/{batch_id}/results", headers=key.headers)
        assert (answer.status, answer.body.count(b"\n")) == (200, 1)
