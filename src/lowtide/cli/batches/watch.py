"""`lowtide batches watch`: a batch as it goes on. A bar at a terminal, lines elsewhere, JSON lines for programs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lowtide.cli.batches.bar import bar
from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.output import Output
from lowtide.cli.batches.statuses import NOT_ALL, OK
from lowtide.cli.batches.text import ending, pace, requests, status
from lowtide.client.shapes import BatchShape, Found, Live
from lowtide.client.watching import Deadline, states

LINE_EVERY_S = 10.0
"""A log wants a line now and then, not one a second."""

Shown = Callable[[Found], None]


def watch_to_the_end(wanted: Wanted, batch_id: str, timeout_s: float | None) -> int:
    """Show a batch until it has ended, sum it up and return the status that tells whether all succeeded."""
    deadline, last = Deadline.within(timeout_s), None
    try:
        with _shown(wanted.output) as shown:
            for last in states(wanted.api, batch_id, deadline):
                shown(last)
    except KeyboardInterrupt:
        wanted.output.say(f"The batch goes on; watch it again: lowtide batches watch {batch_id}")
        raise
    assert last is not None
    if not wanted.output.json:
        wanted.output.line(last.batch.processing_status if wanted.output.quiet else ending(last.batch))
    counts = last.batch.request_counts
    return OK if counts.succeeded == counts.total else NOT_ALL


def _nothing(_found: Found) -> None:
    pass


@contextmanager
def _shown(output: Output) -> Iterator[Shown]:
    if output.json:
        yield lambda found: output.document(found.raw)
    elif output.quiet:
        yield _nothing
    elif sys.stderr.isatty():
        with bar() as shown:
            yield lambda found: shown(found.batch)
    else:
        yield _Lines(output)


class _Lines:
    """A line when the state or the reason changes, and one now and then."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: tuple[str, str] | None = None
        self._next_s = 0.0

    def __call__(self, found: Found) -> None:
        batch = found.batch
        key = (batch.processing_status, _reason(batch))
        if batch.has_ended or (key == self._told and time.monotonic() < self._next_s):
            return
        self._told, self._next_s = key, time.monotonic() + LINE_EVERY_S
        self._output.say(progress(batch))


def progress(batch: BatchShape) -> str:
    """Return how far a batch is, in a line."""
    parts = [status(batch), requests(batch.request_counts)]
    if isinstance(batch, Live):
        parts += [pace(batch), f"It stands still. {_reason(batch)}" if _reason(batch) else ""]
    return "; ".join(filter(None, parts))


def _reason(batch: BatchShape) -> str:
    return batch.standing_still.text if isinstance(batch, Live) and batch.standing_still is not None else ""
