"""A key's whole life over real processes: made, used by the SDK, rotated, revoked; and where a server without one listens."""

import json
import subprocess
import sys
from pathlib import Path

import anthropic
import pytest
from anthropic import Anthropic

from support.serving import Serve, Served, Upstream, until

PARAMS = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `lowtide` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "lowtide", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def make(data: Path, *arguments: str) -> tuple[str, str]:
    """Return the text and the id of the key that a command makes."""
    done = command("keys", *arguments, "--data", str(data), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    return made["key"], made["id"]


def revoke(data: Path, key_id: str) -> None:
    done = command("keys", "revoke", key_id, "--data", str(data))
    assert done.returncode == 0, done.stderr


def client_of(served: Served, **credential: str) -> Anthropic:
    return Anthropic(base_url=served.url.geturl(), max_retries=0, **credential)  # type: ignore[arg-type]


def refused(client: Anthropic) -> str | None:
    """Return how this client is refused, or None."""
    try:
        client.messages.batches.list()
    except anthropic.AuthenticationError as error:
        return str(error.body["error"]["message"])  # type: ignore[index]
    return None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of the servers that `serve` starts."""
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _let_go(upstream: Upstream) -> None:
    upstream.let_go.set()


def run_one(client: Anthropic) -> str:
    """Run a batch of one request to its end and return its outcome."""
    batch = client.messages.batches.create(requests=[{"custom_id": "a", "params": PARAMS}])  # type: ignore[typeddict-item]
    until(lambda: client.messages.batches.retrieve(batch.id).processing_status == "ended")
    (line,) = client.messages.batches.results(batch.id)
    return line.result.type


def test_a_key_is_made_used_rotated_and_revoked_while_the_server_runs(serve: Serve, data: Path) -> None:
    served = serve()
    with client_of(served, api_key="any") as stranger:
        assert run_one(stranger) == "succeeded"
        key, key_id = make(data, "create", "--name", "laptop")
        until(lambda: refused(stranger) is not None)
    with client_of(served, api_key=key) as client:
        assert run_one(client) == "succeeded"
        assert client.messages.create(**PARAMS).content[0].type == "text"  # type: ignore[call-overload]
    old_form = {"x-api-key": key, "authorization": anthropic.Omit()}
    with Anthropic(base_url=served.url.geturl(), api_key="k", default_headers=old_form, max_retries=0) as client:  # type: ignore[arg-type]
        assert run_one(client) == "succeeded"
    successor, successor_id = make(data, "rotate", key_id, "--grace", "1h")
    with client_of(served, api_key=key) as old, client_of(served, auth_token=successor) as new:
        batch = new.messages.batches.create(requests=[{"custom_id": "a", "params": PARAMS}])  # type: ignore[typeddict-item]
        assert old.messages.batches.retrieve(batch.id).id == batch.id
        revoke(data, key_id)
        assert until(lambda: refused(old)) == "Invalid bearer token"
        assert refused(new) is None
        revoke(data, successor_id)
        assert until(lambda: refused(new)) == "Invalid bearer token"
    assert served.call("GET", "/healthz")[0] == 200
    assert served.call("GET", "/v1/messages/batches")[0] == 401
    assert served.stop() == 0


def test_a_grace_of_nothing_ends_the_old_key_with_the_rotation(serve: Serve, data: Path) -> None:
    key, key_id = make(data, "create")
    served = serve()
    with client_of(served, api_key=key) as old:
        assert refused(old) is None
        make(data, "rotate", key_id, "--grace", "0m")
        assert until(lambda: refused(old)) == "Invalid bearer token"


def test_keys_of_two_workspaces_see_their_own_batches(serve: Serve, data: Path) -> None:
    assert command("workspaces", "create", "research", "--data", str(data)).returncode == 0
    (one, _), (other, _) = make(data, "create"), make(data, "create", "--workspace", "research")
    served = serve()
    with client_of(served, api_key=one) as ours, client_of(served, api_key=other) as theirs:
        batch = ours.messages.batches.create(requests=[{"custom_id": "a", "params": PARAMS}])  # type: ignore[typeddict-item]
        assert [each.id for each in ours.messages.batches.list()] == [batch.id]
        assert list(theirs.messages.batches.list()) == []
        with pytest.raises(anthropic.NotFoundError, match=f"Message Batch {batch.id} not found."):
            theirs.messages.batches.retrieve(batch.id)


def test_a_server_without_a_key_refuses_to_listen_beyond_loopback_and_says_how_to_make_one(
    data: Path, upstream: Upstream
) -> None:
    flags = ("serve", "--host", "0.0.0.0", "--port", "0", "--data", str(data), "--upstream", upstream.url)
    done = command(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        'lowtide: The setting host is "0.0.0.0", which others can reach, but this server has no'
    )
    assert f"lowtide keys create --data {data}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_with_a_key_listens_beyond_loopback_and_wants_it_of_every_call(serve: Serve, data: Path) -> None:
    key, _ = make(data, "create")
    served = serve("--host", "0.0.0.0")
    assert served.call("GET", "/v1/messages/batches")[0] == 401
    with Anthropic(base_url=f"http://127.0.0.1:{served.url.port}", api_key=key, max_retries=0) as client:
        assert run_one(client) == "succeeded"
    assert "keys       wanted of every call" in served.out.read_text()
    assert key not in served.out.read_text()
