"""Where a body is split: a small one in a thread, a large one in a child process that bounds itself.

A parse holds the interpreter's lock for its whole length, so a large body parsed here would stall every other call, and
a hostile one could take the server's memory. A child costs about 150 ms to start; it is started while the last part of
the body still arrives, and waits for its job on standard input. Its end is read from its exit: only a report counts.
"""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec
import structlog

from lowtide.domain.errors import InternalError, InvalidRequest, Overloaded, StoreFull
from lowtide.intake.job import TOO_COSTLY, Job, Report, perform
from lowtide.ports.metadata import NewChunk

SMALL_BYTES = 256 << 10
"""Below this a parse takes under a millisecond."""

_CPU_S_MAX = 20
_MEMORY_BYTES_BASE = 96 << 20
_MEMORY_BYTES_PER_REQUEST = 600

_BY_ITS_OWN_DOING = frozenset({signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS})
_log = structlog.get_logger()
_decode_report = msgspec.msgpack.Decoder(Report).decode


class Splitter:
    """Splits one body. Leaving it ends the child, if one was started."""

    def __init__(self, requests_max: int, places: asyncio.Semaphore) -> None:
        self._requests_max = requests_max
        self._places = places
        self._starting: asyncio.Task[Process] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._starting is None:
            return
        with suppress(OSError):
            child = await asyncio.shield(self._starting)
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
            await child.communicate()

    def warm(self) -> None:
        """Start the child now, so that it is ready when its job is."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(_start())

    async def split(self, body: Path, length: int, output: Path) -> list[NewChunk]:
        """Split, plan and write a body of `length` bytes; raises InvalidRequest, StoreFull or Overloaded."""
        memory = _MEMORY_BYTES_BASE + _MEMORY_BYTES_PER_REQUEST * self._requests_max
        job = Job(str(body), str(output), self._requests_max, memory, _CPU_S_MAX)
        if length <= SMALL_BYTES:
            report = await asyncio.to_thread(perform, job)
        else:
            async with self._places:
                report = await self._in_child(job)
        if report.refusal is not None:
            raise InvalidRequest(report.refusal)
        if report.full is not None:
            raise StoreFull(report.full)
        return report.chunks

    async def _in_child(self, job: Job) -> Report:
        self.warm()
        assert self._starting is not None
        child = await asyncio.shield(self._starting)
        out, _ = await child.communicate(msgspec.msgpack.encode(job))
        if child.returncode == 0:
            return await asyncio.to_thread(_decode_report, out)
        _log.error("intake.child_died", returncode=child.returncode)
        if child.returncode is not None and -child.returncode in _BY_ITS_OWN_DOING:
            return Report(refusal=TOO_COSTLY)
        if child.returncode is not None and child.returncode < 0:
            raise Overloaded  # killed from outside (an operator, or the kernel out of memory): trying again is right
        raise InternalError


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "lowtide.intake.child", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
