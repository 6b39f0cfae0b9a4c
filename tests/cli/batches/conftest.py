"""Servers for the client commands, and the command line in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.batches.hosted import Hosted
from lowtide.cli.main import app
from lowtide.client import pauses
from support.serving import Served, Upstream, in_thread, until

Command = Callable[..., Result]


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosted]:
    """A server that is not ours."""
    with Hosted() as hosted:
        monkeypatch.setenv("LOWTIDE_URL", hosted.url)
        monkeypatch.setattr(pauses, "FIRST_S", 0.01)
        yield hosted


@pytest.fixture
def command() -> Command:
    """Run `lowtide batches …` and return what it printed and its status."""

    def run(*arguments: str, status: int = 0, stdin: bytes | None = None) -> Result:
        done = CliRunner().invoke(app, ["batches", *arguments], input=stdin)
        assert done.exit_code == status, f"{done.exit_code}: {done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    with in_thread(server, server.let_go):
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Served]:
    """A Lowtide of its own processes, shared by the tests of a module."""
    served = Served(tmp_path_factory.mktemp("lowtide") / "data", "--upstream", upstream.url)
    until(served.answers)
    yield served
    upstream.let_go.set()
    served.stop()


@pytest.fixture
def ours(served: Served, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Served:
    """That Lowtide as the server of the commands; its upstream answers at once."""
    monkeypatch.setenv("LOWTIDE_URL", served.url.geturl())
    upstream.let_go.set()
    return served


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """An input of three requests, the last of which no model is asked for."""
    path = tmp_path / "requests.jsonl"
    good = '{"model":"m","max_tokens":8,"messages":[{"role":"user","content":"Well?"}]}'
    bad = '{"model":"m","max_tokens":8,"messages":[]}'
    path.write_text(
        f'{{"custom_id":"a","params":{good}}}\n\n{{"params":{good},"custom_id":"b"}}\n'
        f'{{"custom_id":"c","params":{bad}}}',
        encoding="utf-8",
    )
    return path
