"""A model server and runs against it; `support.runs` has what they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import Model, Run, Start
from support.serving import in_thread


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    with in_thread(server, server.let_go):
        yield server


@pytest.fixture
def start(tmp_path: Path, model: Model) -> Iterator[Start]:
    """Start runs in one directory, against `model` unless a flag names another engine."""
    started: list[Run] = []

    def begin(*arguments: str, given: bytes | None = None, **variables: str) -> Run:
        named = () if {"--gguf", "--upstream"} & set(arguments) else ("--upstream", model.url)
        started.append(Run(tmp_path, *arguments, *named, given=given, **variables))
        return started[-1]

    yield begin
    model.let_go.set()
    for run in started:
        run.kill()
