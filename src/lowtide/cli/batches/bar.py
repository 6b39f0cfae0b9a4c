"""The progress bar of a batch at a terminal: how much is done, by outcome, how fast, how long still, and what is wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live as Display
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from lowtide.cli.batches.text import OUTCOMES, pace, status
from lowtide.client.shapes import BatchShape, Live

STYLES = {"succeeded": "green", "errored": "red", "canceled": "yellow", "expired": "yellow"}


@contextmanager
def bar() -> Iterator[Callable[[BatchShape], None]]:
    """Show a bar on standard error while inside; call what is yielded with each state."""
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(), MofNCompleteColumn(),
        expand=True,
    )  # fmt: skip
    task = progress.add_task("", total=None)
    console = Console(stderr=True, highlight=False)
    with Display(progress, console=console, refresh_per_second=8, transient=True) as display:

        def shown(batch: BatchShape) -> None:
            counts = batch.request_counts
            moves = isinstance(batch, Live) or batch.has_ended or counts.processing < counts.total
            done = counts.total - counts.processing
            progress.update(
                task, description=status(batch), completed=done, total=counts.total if moves else None
            )  # a bar without a total swings: other servers tell nothing before the end
            display.update(Group(progress, *_below(batch)))

        yield shown


def _below(batch: BatchShape) -> Iterator[Text]:
    """Yield the lines under the bar."""
    line = Text()
    for name in OUTCOMES:
        if count := getattr(batch.request_counts, name):
            line.append(f"{count:,} {name}  ", style=STYLES[name])
    if isinstance(batch, Live):
        line.append(pace(batch))
    yield line
    if isinstance(batch, Live) and batch.standing_still is not None:
        yield Text(f"It stands still. {batch.standing_still.text}", style="yellow")
