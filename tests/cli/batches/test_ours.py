"""The client commands against a Lowtide: what it adds to the API, and the whole way of a batch."""

import json
import threading
import time
from pathlib import Path

import pytest

from cli.batches.conftest import Command
from contract.serving import Served as InThread
from lowtide.cli.batches.output import Output
from support.serving import Served, Upstream, until


def test_the_whole_way_of_a_batch(ours: Served, command: Command, lines: Path, tmp_path: Path) -> None:
    done = command("create", str(lines), "--watch", status=4)
    name, sentence = done.stdout.splitlines()
    assert sentence.startswith(f"{name} ended after ")
    assert sentence.endswith(": 2 succeeded, 1 errored.")
    assert "2 succeeded, 1 errored" in command("list").stdout
    live = json.loads(command("show", name, "--json").stdout)["live"]
    assert live["usage"]["output_tokens"] == 2
    assert "tokens    2 in, 2 out" in command("show", name).stdout
    command("results", name, "-o", str(tmp_path / "out"))
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert {row["custom_id"]: row["result"]["type"] for row in rows} == {
        "a": "succeeded",
        "b": "succeeded",
        "c": "errored",
    }
    command("delete", name)
    assert f"Message Batch {name} not found." in command("results", name, status=1).stderr


def test_one_input_makes_one_batch_until_that_is_deleted(ours: Served, command: Command) -> None:
    text = b'{"custom_id":"once","params":{"model":"m","max_tokens":8,"messages":[]}}'
    first = command("create", "-", "-q", "--watch", "--again", stdin=text, status=4).stdout.split()[0]
    second = command("create", "-", "--watch", stdin=text, status=4).stdout.split()[0]
    assert second != first
    now_s = time.time()
    until(lambda: time.time() >= int(now_s) + 1)  # the clock in the head of an answer has whole seconds
    found = command("create", "-", stdin=text)
    assert found.stdout == f"{second}\n"
    assert "--again makes another." in found.stderr
    command("delete", second)
    third = command("create", "-", stdin=text).stdout.strip()
    assert third not in {first, second}


def test_a_running_batch_is_followed_and_watched_to_its_end(
    ours: Served, upstream: Upstream, command: Command, lines: Path, tmp_path: Path
) -> None:
    upstream.let_go.clear()
    name = command("create", str(lines), "--again").stdout.strip()
    until(lambda: "1 errored" in command("show", name).stdout)
    out = tmp_path / "out"
    done = command("results", name, "--follow", "--timeout", "0.5", "-o", str(out), status=5)
    assert "What has come is kept" in done.stderr
    assert len((tmp_path / "out.part").read_bytes().splitlines()) == 1
    follower = threading.Thread(target=command, args=("results", name, "-f", "-o", str(out)))
    upstream.let_go.set()
    follower.start()
    follower.join()
    assert command("results", name).stdout_bytes == out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "requests.jsonl"]


def test_watch_hears_of_progress_and_of_the_end(
    ours: Served, upstream: Upstream, command: Command, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.let_go.clear()
    name = command("create", str(lines), "--again").stdout.strip()
    until(lambda: "1 errored" in command("show", name).stdout)
    document = Output.document

    def let_go(output: Output, data: bytes) -> None:
        document(output, data)
        upstream.let_go.set()

    monkeypatch.setattr(Output, "document", let_go)
    *progress, ended = [json.loads(line) for line in command("watch", name, "--json", status=4).stdout.splitlines()]
    assert progress[0]["request_counts"]["processing"] == 2
    assert (ended["type"], ended["request_counts"]["succeeded"]) == ("message_batch", 2)


def test_cancel_of_what_has_ended_says_so(ours: Served, command: Command, lines: Path) -> None:
    name = command("create", str(lines), "--again", "--watch", "-q", status=4).stdout.split()[0]
    assert command("cancel", name).stderr == "It has ended already; nothing was canceled.\n"


def test_show_and_watch_say_why_a_batch_stands_still(tmp_path: Path, command: Command, lines: Path) -> None:
    with InThread(tmp_path / "lowtide") as served:
        at = ("--url", served.url)
        name = command("create", str(lines), *at).stdout.split()[-1]  # the server in this process logs there too
        assert "\nIt stands still. No worker is running: " in command("show", name, *at).stdout
        done = command("watch", name, "--timeout", "1", *at, status=5)
        assert "; It stands still. No worker is running: " in done.stderr
