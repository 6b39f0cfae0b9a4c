"""`lowtide keys` and `lowtide workspaces`: a key alone on standard output, tables for people, JSON, errors in a sentence."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lowtide.cli.main import app
from lowtide.domain.errors import SettingsError
from lowtide.domain.keys import parse_key


def run(data: Path, *arguments: str) -> Result:
    """Run a command within this process."""
    result = CliRunner().invoke(app, [*arguments, "--data", str(data)])
    if isinstance(result.exception, SettingsError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def made(data: Path, *flags: str) -> dict[str, str]:
    return dict(json.loads(run(data, "keys", "create", "--json", *flags).stdout))


def listed(data: Path) -> list[dict[str, object]]:
    return list(json.loads(run(data, "keys", "list", "--json").stdout))


def test_a_new_key_is_all_that_standard_output_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lowtide", "keys", "create", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout.removesuffix("\n")
    assert parse_key(text) is not None
    assert text not in done.stderr
    assert "first key" in done.stderr
    assert "shown this once" in done.stderr


def test_a_key_stands_nowhere_in_the_data_directory(tmp_path: Path) -> None:
    text = made(tmp_path)["key"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if text[3:30].encode() in path.read_bytes()]


def test_a_list_shows_each_key_and_its_state_and_no_text(tmp_path: Path) -> None:
    one = made(tmp_path, "--name", "laptop", "--models", "claude-*", "--models", "qwen3", "--expires", "90d")
    other = made(tmp_path, "--scope", "admin")
    run(tmp_path, "keys", "revoke", other["id"])
    table = run(tmp_path, "keys", "list").stdout
    head, first, second = table.splitlines()
    assert re.split(r" {2,}", head) == ["ID", "NAME", "WORKSPACE", "SCOPES", "MODELS", "CREATED", "STATE"]
    assert re.split(r" {2,}", first)[:5] == [one["id"], "laptop", "default", "batches,messages", "claude-*,qwen3"]
    assert "valid until 20" in first
    assert re.split(r" {2,}", second)[:5] == [other["id"], "key", "default", "admin", "all"]
    assert "revoked 20" in second
    for text in (one["key"], other["key"]):
        assert text not in table + json.dumps(listed(tmp_path))
    assert [(key["id"], key["revoked_at"] is None) for key in listed(tmp_path)] == [
        (one["id"], True),
        (other["id"], False),
    ]


def test_an_expired_key_is_listed_as_such(tmp_path: Path) -> None:
    key = made(tmp_path, "--expires", "1m")
    conn = sqlite3.connect(tmp_path / "lowtide.db")
    conn.execute("UPDATE api_key SET expires_us = created_us WHERE id = ?", (key["id"],))
    conn.commit()
    conn.close()
    assert "  expired 20" in run(tmp_path, "keys", "list").stdout


def test_a_rotation_prints_the_successor_alone(tmp_path: Path) -> None:
    key = made(tmp_path, "--models", "m")
    done = run(tmp_path, "keys", "rotate", key["id"], "--grace", "30m")
    text = done.stdout.removesuffix("\n")
    assert parse_key(text) is not None
    assert text != key["key"]
    assert key["id"] in done.stderr
    assert text not in done.stderr
    old, new = listed(tmp_path)
    assert old["expires_at"] is not None
    assert (new["expires_at"], new["models"]) == (None, ["m"])


def test_workspaces_are_made_listed_and_limited(tmp_path: Path) -> None:
    run(tmp_path, "workspaces", "create", "research", "--calls-per-minute", "60")
    run(tmp_path, "workspaces", "limits", "research", "--queued-requests", "1000")
    table = run(tmp_path, "workspaces", "list").stdout
    head, default, research = table.splitlines()
    assert re.split(r" {2,}", head) == ["NAME", "ID", "CALLS/MIN", "QUEUED REQUESTS", "CREATED"]
    assert re.split(r" {2,}", default)[2:4] == ["default", "default"]
    assert re.split(r" {2,}", research)[2:4] == ["60", "1000"]
    run(tmp_path, "workspaces", "limits", "research", "--calls-per-minute", "default", "--queued-requests", "0")
    shown = run(tmp_path, "workspaces", "limits", "research").stdout
    assert re.split(r" {2,}", shown.splitlines()[1])[2:4] == ["default", "any"]
    made(tmp_path, "--workspace", "research")
    found = json.loads(run(tmp_path, "workspaces", "list", "--json").stdout)[1]
    assert listed(tmp_path)[0]["workspace_id"] == found["id"]
    assert (found["calls_per_minute_max"], found["queued_requests_max"]) == (None, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("keys", "create", "--workspace", "away"), "There is no workspace away."),
        (("keys", "create", "--expires", "soon"), 'The flag --expires is "soon", but it should be a time such as 30m'),
        (("keys", "create", "--name", "a b"), "A name should be 1 to 64 letters"),
        (("keys", "create", "--models", "a b"), "The flag --models should be a model's name or a pattern"),
        (("keys", "revoke", "key_away"), "There is no key key_away."),
        (("keys", "rotate", "key_away"), "There is no key key_away."),
        (("keys", "list", "--workspace", "away"), "There is no workspace away."),
        (("workspaces", "create", "default"), "There is a workspace default already."),
        (("workspaces", "create", "../x"), "A name should be 1 to 64 letters"),
        (("workspaces", "limits", "away"), "There is no workspace away."),
        (
            ("workspaces", "limits", "default", "--calls-per-minute", "many"),
            'The flag --calls-per-minute is "many", but it should be a whole number or "default".',
        ),
    ],
)
def test_an_error_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    made(tmp_path)
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        run(tmp_path, *arguments)


@pytest.mark.parametrize("arguments", [("keys", "list"), ("keys", "revoke", "k"), ("workspaces", "list")])
def test_a_data_directory_without_a_server_is_told_instead_of_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"^There is no Lowtide in .*/away; name the data directory"):
        run(tmp_path / "away", *arguments)
    assert not (tmp_path / "away").exists()


def test_a_store_without_a_key_says_so(tmp_path: Path) -> None:
    run(tmp_path, "workspaces", "create", "w")
    assert run(tmp_path, "keys", "list").stdout == "There is no key yet: this machine alone may call.\n"
