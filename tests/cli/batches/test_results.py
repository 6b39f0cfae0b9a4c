"""`lowtide batches results`: whole files, broken downloads, filters and sums, of a server that is not ours."""

import json
from pathlib import Path

import pytest

from cli.batches.conftest import Command
from cli.batches.hosted import Handler, Hosted, cut, passing


def later(name: str) -> str:
    """Return the note that is kept beside a part."""
    return f"{name}.part.etag"


def test_results_come_as_they_are(hosted: Hosted, command: Command) -> None:
    name = hosted.add(succeeded=3, errored=1)
    assert command("results", name).stdout_bytes == hosted.results[name]


def test_the_key_goes_to_the_server_that_was_named_and_not_to_results_url(hosted: Hosted, command: Command) -> None:
    name = hosted.add(succeeded=1)
    command("results", name)
    assert hosted.paths()[-1] == f"/v1/messages/batches/{name}/results"


def test_a_file_appears_when_it_is_whole(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    name = hosted.add(succeeded=500)
    path = tmp_path / "out.jsonl"
    command("results", name, "-o", str(path))
    assert path.read_bytes() == hosted.results[name]
    assert sorted(tmp_path.iterdir()) == [path]
    assert (
        command("results", name, "-o", str(path), status=2).stderr == f"lowtide: {path} exists; --force replaces it.\n"
    )
    command("results", name, "-o", str(path), "--force")


@pytest.mark.parametrize("to_file", [True, False])
def test_a_cut_download_goes_on_where_it_was(
    hosted: Hosted, command: Command, tmp_path: Path, *, to_file: bool
) -> None:
    hosted.ranges = True
    name = hosted.add(succeeded=500)
    hosted.steps += [passing, cut(name, 70_001)]
    path = tmp_path / "out.jsonl"
    done = command("results", name, *(["-o", str(path)] if to_file else []))
    assert (path.read_bytes() if to_file else done.stdout_bytes) == hosted.results[name]
    assert "70,001 bytes are here. Trying again" in done.stderr
    assert hosted.calls[-1].headers["range"] == "bytes=70001-"


def test_a_later_command_goes_on_with_the_part(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    hosted.ranges = True
    name = hosted.add(succeeded=500)
    hosted.steps += [passing, cut(name, 1000)]
    path = tmp_path / "out.jsonl"
    done = command("results", name, "-o", str(path), "--retries", "0", status=3)
    assert "the same command goes on with it" in done.stderr
    assert (tmp_path / "out.jsonl.part").stat().st_size == 1000
    assert "Going on after 1,000 bytes" in command("results", name, "-o", str(path)).stderr
    assert path.read_bytes() == hosted.results[name]
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_part_of_other_results_is_begun_anew(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    hosted.ranges = True
    name, other = hosted.add(succeeded=500), hosted.add(succeeded=400)
    path = tmp_path / "out.jsonl"
    hosted.steps += [passing, cut(name, 1000)]
    command("results", name, "-o", str(path), "--retries", "0", status=3)
    command("results", other, "-o", str(path))
    assert path.read_bytes() == hosted.results[other]


def test_without_an_etag_a_file_is_begun_anew(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    name = hosted.add(succeeded=500)
    hosted.steps += [passing, cut(name, 70_001)]
    path = tmp_path / "out.jsonl"
    assert "It cannot be resumed. Trying again" in command("results", name, "-o", str(path)).stderr
    assert path.read_bytes() == hosted.results[name]


def test_without_an_etag_a_pipe_gets_no_line_twice(hosted: Hosted, command: Command) -> None:
    name = hosted.add(succeeded=500)
    hosted.steps += [passing, cut(name, 70_001)]
    done = command("results", name, status=3)
    assert hosted.results[name].startswith(done.stdout_bytes)
    assert "with --output FILE it would begin anew" in done.stderr


def test_a_cut_after_the_last_byte_costs_nothing(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    hosted.ranges = True
    name = hosted.add(succeeded=5)
    size = len(hosted.results[name])

    def longer(handler: Handler) -> bool:
        handler.send(200, hosted.results[name] + b"x", {"etag": '"results-1"'}, cut_at=size)
        return True

    def beyond(handler: Handler) -> bool:
        handler.send(416, b"", {"content-range": f"bytes */{size}"})
        return True

    hosted.steps += [passing, longer, beyond]
    command("results", name, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == hosted.results[name]


def test_results_with_lines_missing_are_not_taken(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    name = hosted.add(succeeded=5)
    hosted.results[name] = hosted.results[name][: hosted.results[name].rindex(b"\n", 0, -1) + 1]
    text = "lowtide: The results have 4 lines for 5 requests; they are not complete.\n"
    assert command("results", name, "-o", str(tmp_path / "out"), status=1).stderr.endswith(text)
    assert not (tmp_path / "out").exists()
    assert command("results", name, status=1).stderr == text


def test_results_of_a_running_batch_say_what_to_do(hosted: Hosted, command: Command) -> None:
    name = hosted.add(processing=5)
    done = command("results", name, status=1)
    assert done.stderr.startswith(f"lowtide: {name} has not ended. Watch it (lowtide batches watch)")


def test_follow_waits_for_a_server_that_has_only_whole_results(
    hosted: Hosted, command: Command, tmp_path: Path
) -> None:
    name = hosted.add(processing=5)

    def end(_handler: Handler) -> bool:
        hosted.end(name, 5)
        return False

    hosted.steps += [passing] * 4 + [end]
    command("results", name, "--follow", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == hosted.results[name]


def test_one_outcome_can_be_picked(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    name = hosted.add(succeeded=3, errored=2)
    wanted = b"".join(hosted.results[name].splitlines(keepends=True)[3:])
    assert command("results", name, "--outcome", "errored").stdout_bytes == wanted
    command("results", name, "--outcome", "errored", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_summary_names_each_kind_of_error_with_an_example(hosted: Hosted, command: Command, tmp_path: Path) -> None:
    name = hosted.add(succeeded=3, errored=2)
    assert command("results", name, "--summary").stdout.splitlines() == [
        "5 results: 3 succeeded, 2 errored",
        "tokens: 9 in, 15 out",
        "      2 x invalid_request_error: messages: Field required (such as r3)",
    ]
    done = command("results", name, "--summary", "--json", "-o", str(tmp_path / "out"))
    document = json.loads(done.stdout)
    assert document["outcomes"] == {"succeeded": 3, "errored": 2, "canceled": 0, "expired": 0}
    assert document["usage"]["output_tokens"] == 15
    assert document["errors"][0]["example"] == "r3"
    assert (tmp_path / "out").read_bytes() == hosted.results[name]
