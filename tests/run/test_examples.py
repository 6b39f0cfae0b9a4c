"""The examples' batch by `lowtide run` on the simulated engine, killed at a random moment and resumed."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import Start, length, results
from support.serving import until

EXAMPLES = Path(__file__).parents[2] / "examples"
IN_FLIGHT = 32


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A simulated model server: its address, and the file with a line for each call."""
    log, out = tmp_path / "calls.jsonl", tmp_path / "simulate.out"
    command = [sys.executable, "-m", "lowtide", "simulate", "--port", "0", "--speed", "2", "--log", str(log)]
    with out.open("wb") as told:
        process = subprocess.Popen(command, stdout=told)
    yield until(lambda: out.read_text(encoding="utf-8")).split()[-1], log
    process.kill()
    process.wait()


@pytest.mark.parametrize("killed", ["the command", "every process"])
def test_the_examples_run_through_a_kill_at_a_random_moment(
    start: Start, simulated: tuple[str, Path], tmp_path: Path, killed: str
) -> None:
    url, log = simulated
    lines = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.jsonl"))]
    (tmp_path / "in.jsonl").write_bytes(b"".join(lines))
    count = length(tmp_path / "in.jsonl")
    flags = ("in.jsonl", "--output", "out.jsonl", "--upstream", url, "--in-flight", str(IN_FLIGHT))
    run = start(*flags)
    enough = random.randint(1, count - IN_FLIGHT)
    until(lambda: length(log) >= enough or run.process.poll() is not None)
    if killed == "every process":
        run.kill_all(tmp_path / "out.jsonl.lowtide")
    else:
        run.kill()
    again = start(*flags)
    assert again.status() == 0, again.said
    named = [line.split(b'"')[3].decode() for line in (tmp_path / "in.jsonl").read_bytes().splitlines()]
    assert results(tmp_path / "out.jsonl") == [(name, "succeeded") for name in named]
    repeated = length(log) - count
    print(f"{killed} killed after {enough} of {count} calls; repeated upstream calls: {repeated}")
    assert 0 <= repeated <= 2 * IN_FLIGHT
