"""Servers for the tests of the processes; `support.serving` has what they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.serving import Serve, Served, Upstream, gone, in_thread, until


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    with in_thread(server, server.let_go):
        yield server


@pytest.fixture
def serve(tmp_path: Path, upstream: Upstream) -> Iterator[Serve]:
    """Start servers on one data directory; whatever of them still runs at the end is killed."""
    started: list[Served] = []

    def start(*flags: str, **variables: str) -> Served:
        named = () if "--config" in flags else ("--upstream", upstream.url)
        served = Served(tmp_path / "data", *named, *flags, **variables)
        started.append(served)
        return served

    yield start
    upstream.let_go.set()
    for served in started:
        served.process.kill()
        served.process.wait()
    for served in started:
        for pid in [*served.pids("api"), *served.pids("worker")]:
            until(lambda pid=pid: gone(pid))
