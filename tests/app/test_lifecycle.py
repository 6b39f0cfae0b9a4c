"""A process lives until it is told to stop, and ends loudly when a part of it does."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from lowtide.app.lifecycle import (
    FAULT,
    STOPPED,
    UNUSABLE,
    EndedEarly,
    stop_on_lifeline,
    until_stopped,
)


async def until_told(stop: asyncio.Event) -> None:
    """Run until told to stop."""
    await stop.wait()


async def test_all_works_finish_when_told() -> None:
    stop = asyncio.Event()
    finished = []

    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        finished.append(1)

    running = asyncio.create_task(until_stopped({"one": work, "two": work}, stop))
    stop.set()
    await running
    assert finished == [1, 1]


async def test_a_work_that_fails_ends_the_others_and_is_raised() -> None:
    async def fail(_stop: asyncio.Event) -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        await until_stopped({"good": until_told, "bad": fail}, asyncio.Event())
    assert caught.group_contains(LookupError)


async def test_a_work_that_returns_before_its_time_is_a_fault() -> None:
    async def leave(_stop: asyncio.Event) -> None:
        await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup) as caught:
        await until_stopped({"good": until_told, "leaves": leave}, asyncio.Event())
    assert caught.group_contains(EndedEarly, match="leaves")


async def test_the_end_of_the_lifeline_is_a_stop() -> None:
    lifeline, other_end = os.pipe()
    stop = asyncio.Event()
    orphaned = []
    stop_on_lifeline(stop, lifeline, lambda: orphaned.append(1))
    os.write(other_end, b"anything")
    await asyncio.sleep(0)
    assert not stop.is_set()
    os.close(other_end)
    await stop.wait()
    os.close(lifeline)
    assert orphaned == [1]


def run(body: str) -> subprocess.CompletedProcess[str]:
    """Run a coroutine as a process does."""
    code = f"""
import sys
from lowtide.app import logs
from lowtide.app.lifecycle import run
from lowtide.app.settings import LogSettings
from lowtide.domain.errors import SettingsError
logs.configure(LogSettings(), process="p-1")
async def main():
    {body}
sys.exit(run(main()))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_the_exit_status_says_what_happened() -> None:
    assert run("return 0").returncode == STOPPED
    wrong = run("raise SettingsError('The setting x is wrong.')")
    assert (wrong.returncode, wrong.stderr) == (UNUSABLE, "lowtide: The setting x is wrong.\n")
    crashed = run("raise LookupError('why')")
    assert crashed.returncode == FAULT
    line = json.loads(crashed.stderr)
    assert (line["event"], line["level"], line["process"]) == ("process.failed", "error", "p-1")
    assert "LookupError: why" in line["exception"]


def test_libraries_log_as_we_do() -> None:
    done = run(
        "import logging, warnings; logging.getLogger('uvicorn.error').info('routine');"
        "logging.getLogger('uvicorn.error').warning('news %s', 1); return 0"
    )
    line = json.loads(done.stderr)
    assert (line["event"], line["level"], line["process"]) == ("news 1", "warning", "p-1")
    assert line["timestamp"].endswith("Z")


def test_a_text_log_is_readable() -> None:
    done = run(
        "logs.configure(LogSettings(format='text'), process='p-1'); import structlog;"
        "structlog.get_logger().info('chunk.claimed', chunk=7); structlog.get_logger().debug('unseen'); return 0"
    )
    (line,) = done.stderr.splitlines()
    for word in ("chunk.claimed", "chunk=7", "process=p-1", "info"):
        assert word in line
