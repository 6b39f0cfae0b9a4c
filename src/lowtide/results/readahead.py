"""Reading ahead: the next stretches of the results are fetched while the last one goes out to the client.

Owns the tasks that read, and bounds how many there are: what a download holds in memory is `ahead` stretches and the
one being sent, whatever the size of the batch (bounded-memory). When its consumer stops, for whatever reason, every
task is ended before `read_ahead` returns. It must never reorder stretches.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive bytes of the results: whole lines, and how many."""

    data: bytes
    lines: int


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch that can be read. `at` is where it begins in the results; None says behind the step before it."""

    at: int | None
    read: Callable[[], Coroutine[Any, Any, Stretch]]


async def read_ahead(steps: AsyncGenerator[Step, None], ahead: int) -> AsyncGenerator[tuple[int | None, Stretch], None]:
    """Yield each step's place and stretch, in order, with up to `ahead` of them being read or waiting."""
    filler = _Filler(steps, ahead)
    try:
        while (item := await filler.queue.get()) is not None:
            step, reading = item
            stretch = await reading
            filler.room.release()
            yield step.at, stretch
        await filler.task
    finally:
        await filler.close()


class _Filler:
    """Begins to read each step as soon as there is room. None ends the queue, also after a failure."""

    def __init__(self, steps: AsyncGenerator[Step, None], ahead: int) -> None:
        self._steps = steps
        self.room = asyncio.Semaphore(ahead)
        self.queue: asyncio.Queue[tuple[Step, asyncio.Task[Stretch]] | None] = asyncio.Queue()
        self.task = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        try:
            async with aclosing(self._steps):
                async for step in self._steps:
                    await self.room.acquire()
                    self.queue.put_nowait((step, asyncio.create_task(step.read())))
        finally:
            self.queue.put_nowait(None)

    async def close(self) -> None:
        """End every task that still runs and wait for it: nothing reads on behind a client that left."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        readings = []
        while not self.queue.empty():
            if (item := self.queue.get_nowait()) is not None:
                readings.append(item[1])
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
