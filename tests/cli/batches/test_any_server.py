"""The client commands against a server that is not ours."""

import json
from pathlib import Path

import pytest

from cli.batches.conftest import Command
from cli.batches.hosted import BATCHES, Handler, Hosted, busy, lost, passing


def test_create_sends_lines_as_one_body_and_prints_the_id(hosted: Hosted, command: Command, lines: Path) -> None:
    done = command("create", str(lines))
    assert done.stdout == "msgbatch_0001\n"
    sent = hosted.calls[-1]
    assert [each["custom_id"] for each in json.loads(sent.body)["requests"]] == ["a", "b", "c"]
    assert sent.headers["idempotency-key"].startswith("lowtide-")
    assert sent.headers["anthropic-version"] == "2023-06-01"


def test_the_same_input_has_the_same_key_and_again_has_another(hosted: Hosted, command: Command, lines: Path) -> None:
    command("create", str(lines))
    command("create", "-", stdin=lines.read_bytes())
    command("create", str(lines), "--again")
    first, second, third = [seen.headers["idempotency-key"] for seen in hosted.calls if seen.method == "POST"]
    assert first == second
    assert third != first


def test_a_body_is_sent_as_it_is(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    body = b'{\n "requests": [ {"custom_id": "x", "params": {"model": "\xc3\xa9"}} ]\n}\n'
    (tmp_path / "body.json").write_bytes(body)
    command("create", str(tmp_path / "body.json"))
    assert hosted.calls[-1].body == body


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "standard input is empty."),
        ("[{}]", 'standard input is a JSON array; it should be one request per line, or {"requests": […]}.'),
        ('{"custom_id":"a","params":{}}\n{"custom_id":"b"}', "standard input, line 2: Object missing required field"),
        ('{"custom_id":"a","params":[]}', "standard input, line 1: `params` should be an object."),
        ("\n\n}", "standard input, line 3: JSON is malformed"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_sent(hosted: Hosted, command: Command, text: str, sentence: str) -> None:
    done = command("create", "-", stdin=text.encode(), status=2)
    assert done.stderr.startswith(f"lowtide: {sentence}")
    assert hosted.calls == []


def test_an_input_that_changes_while_it_is_sent_makes_no_batch(hosted: Hosted, command: Command, lines: Path) -> None:
    def change(_handler: Handler) -> bool:
        lines.write_text(lines.read_text().replace('"a"', '"z"'))
        return False

    hosted.steps.append(change)  # after the check, before the body
    done = command("create", str(lines), status=2)
    assert done.stderr == f"lowtide: {lines} changed while it was being sent; no batch was made.\n"
    assert hosted.batches == {}


def test_a_busy_server_is_called_again(hosted: Hosted, command: Command, lines: Path) -> None:
    hosted.steps += [busy, passing, busy]
    done = command("create", str(lines))
    assert done.stderr.count("Too many requests (status 429, request-id req_011) Trying again in 0 s.") == 2
    assert len(hosted.batches) == 1


def test_a_lost_answer_to_a_create_is_not_asked_for_again(hosted: Hosted, command: Command, lines: Path) -> None:
    hosted.steps += [passing, lost]
    done = command("create", str(lines), status=3)
    assert "The batch may have been created all the same: look at `lowtide batches list` first." in done.stderr
    assert len(hosted.paths("POST")) == 1


def test_other_calls_are_made_again_after_a_cut(hosted: Hosted, command: Command) -> None:
    name = hosted.add(succeeded=1)
    hosted.steps.append(lost)
    assert command("show", name, "-q").stdout == "ended\n"


def test_more_patience_than_we_have_is_not_shown(hosted: Hosted, command: Command) -> None:
    def later(handler: Handler) -> bool:
        handler.refuse(429, "rate_limit_error", "Come tomorrow", {"retry-after": "86400"})
        return True

    hosted.steps.append(later)
    assert command("list", status=1).stderr == "lowtide: Come tomorrow (status 429, request-id req_011)\n"


def test_the_list_is_paged_and_newest_first(hosted: Hosted, command: Command) -> None:
    names = [hosted.add(succeeded=2, errored=1) for _ in range(1005)][::-1]
    assert command("list", "--all", "-q").stdout.split() == names
    assert len(hosted.paths()) == 2
    assert command("list", "-q").stdout.split() == names[:20]
    assert command("list", "-q", "--limit", "3", "--after", names[4]).stdout.split() == names[5:8]
    assert command("list", "-q", "--limit", "3", "--before", names[5]).stdout.split() == names[2:5]
    rows = [json.loads(line) for line in command("list", "--json", "--limit", "2").stdout.splitlines()]
    assert [row["id"] for row in rows] == names[:2]


def test_the_list_for_people_says_what_became_of_each(hosted: Hosted, command: Command) -> None:
    hosted.add(succeeded=2, errored=1)
    hosted.add(processing=4)
    head, running, ended = command("list").stdout.splitlines()
    assert head.split() == ["id", "status", "requests", "outcomes", "created", "age", "time"]
    assert running.split()[:5] == ["msgbatch_0002", "in", "progress", "4", "-"]
    assert "2 succeeded, 1 errored" in ended
    assert ended.rstrip().endswith("took 10 min 29 s")


def test_show_of_another_server_has_no_live_figures(hosted: Hosted, command: Command) -> None:
    name = hosted.add(succeeded=1)
    document = json.loads(command("show", name, "--json").stdout)
    assert document == {"batch": hosted.batches[name], "live": None}
    assert "1: 1 succeeded" in command("show", name).stdout


def test_watch_asks_until_the_end_and_its_status_tells(hosted: Hosted, command: Command) -> None:
    name = hosted.add(processing=3)

    def end(_handler: Handler) -> bool:
        hosted.end(name, 2, 1)
        return False

    hosted.steps += [passing, passing, passing, end]
    done = command("watch", name, status=4)
    assert done.stdout == f"{name} ended after 10 min 29 s: 2 succeeded, 1 errored.\n"
    assert "in progress; 3, all in processing" in done.stderr
    assert hosted.paths().count(f"/lowtide/batches/{name}/events") == 1


def test_watch_waits_no_longer_than_it_may(hosted: Hosted, command: Command) -> None:
    name = hosted.add(processing=3)
    done = command("watch", name, "--timeout", "0.5", status=5)
    assert "The batch has not ended in the time given; it goes on." in done.stderr


def test_cancel_and_delete(hosted: Hosted, command: Command) -> None:
    name = hosted.add(processing=1)
    done = command("delete", name, status=1)
    assert f"First: lowtide batches cancel {name} && lowtide batches watch {name}" in done.stderr
    assert "In progress batches cannot be deleted." in done.stderr
    assert json.loads(command("cancel", name, "--json").stdout)["processing_status"] == "canceling"
    hosted.end(name, 1)
    assert json.loads(command("delete", name, "--json").stdout) == {"id": name, "type": "message_batch_deleted"}
    assert command("show", name, status=1).stderr == (
        f"lowtide: Message Batch {name} not found. (status 404, request-id req_011)\n"
    )


def test_the_key_comes_from_the_environment_or_a_file(
    hosted: Hosted, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "second")
    command("list")
    monkeypatch.setenv("LOWTIDE_API_KEY", "first")
    command("list")
    (tmp_path / "key").write_text("third\n")
    command("list", "--key-file", str(tmp_path / "key"))
    assert [seen.headers["x-api-key"] for seen in hosted.calls] == ["second", "first", "third"]
    (tmp_path / "key").write_text("two lines\nof it")
    done = command("list", "--key-file", str(tmp_path / "key"), status=2)
    assert done.stderr.endswith("holds no key: it should be one line of printable characters.\n")
    assert "two lines" not in done.stderr


@pytest.mark.parametrize(
    ("url", "status", "text"),
    [
        ("http://127.0.0.1:1", 3, "lowtide: Cannot reach http://127.0.0.1:1: Connection refused.\n"),
        ("ftp://x", 2, "lowtide: The URL 'ftp://x' cannot be used; it should be one such as http://127.0.0.1:8787.\n"),
        ("http://k:s@x", 2, "lowtide: The URL should have neither credentials nor a query; a key comes from LOWTIDE_"),
    ],
)
def test_a_wrong_url_is_told(command: Command, url: str, status: int, text: str) -> None:
    assert command("list", "--url", url, status=status).stderr.startswith(text)


def test_a_server_of_something_else_is_told(hosted: Hosted, command: Command) -> None:
    def page(handler: Handler) -> bool:
        handler.send(200, b"<html>hello</html>", {})
        return True

    def moved(handler: Handler) -> bool:
        handler.send(302, b"", {"location": "https://other.invalid/"})
        return True

    hosted.steps += [page, moved]
    assert "is the URL right?" in command("list", status=1).stderr
    assert "leads on to https://other.invalid/" in command("list", status=1).stderr


def test_a_url_may_end_in_v1(hosted: Hosted, command: Command) -> None:
    command("list", "--url", f"{hosted.url}/v1/")
    assert hosted.paths() == [f"{BATCHES}?limit=20"]
