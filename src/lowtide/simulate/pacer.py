"""Runs an engine in real time on the event loop.

One timer, set for the engine's next change; no task per sequence or token. With speed 0 a sequence is run to its end
inside `submit`. Reports are plain calls on the loop's thread and must not block.
"""

import asyncio
import time

from lowtide.simulate.engine import Engine, Sequence


class Pacer:
    """The engine's clock: monotonic time, `speed` times as fast."""

    def __init__(self, engine: Engine, speed: float) -> None:
        self.engine = engine
        self._speed = speed
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def submit(self, sequence: Sequence) -> None:
        now_ns = self._now_ns()
        self._deliver(self.engine.advance(now_ns))
        self.engine.submit(sequence, now_ns)
        if self._speed:
            self._arm()
        else:
            self._run_out()

    def abort(self, sequence: Sequence) -> None:
        self.engine.abort(sequence)

    def _now_ns(self) -> int:
        return int(time.monotonic_ns() * self._speed)

    def _deliver(self, reports: list[Sequence]) -> None:
        for sequence in reports:
            sequence.report()

    def _run_out(self) -> None:
        """Run the engine until it is idle; its own time then runs ahead of the clock, which nobody sees."""
        while (at_ns := self.engine.next_ns()) is not None:
            self._deliver(self.engine.advance(at_ns))

    def _arm(self) -> None:
        at_ns = self.engine.next_ns()
        if at_ns is None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0, at_ns - self._now_ns()) / self._speed / 1e9
        if self._timer is not None:
            if self._due <= due:
                return  # it rings early and arms itself again
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._deliver(self.engine.advance(self._now_ns()))
        self._arm()
