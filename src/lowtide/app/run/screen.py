"""What a person sees while a run goes on, on standard error: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from lowtide.app.run.summary import duration
from lowtide.app.run.tally import Tally

LINE_EVERY_S: Final = 10.0


class Screen(Protocol):
    """Where a run tells how far it is."""

    def reading(self, lines: int) -> None:
        """Tell how many lines of the input were looked at."""
        ...

    def show(self, tally: Tally) -> None:
        """Tell how far the run is."""
        ...

    def say(self, text: str) -> None:
        """Tell something once."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def screen() -> Screen:
    """Return a bar if standard error is a terminal, else plain lines."""
    return Bar() if sys.stderr.isatty() else Lines()


def short(number: int) -> str:
    """Return a number of tokens in few characters: 950, 12.3k, 4.5M."""
    if number < 1_000:
        return str(number)
    return f"{number / 1e3:.1f}k" if number < 999_950 else f"{number / 1e6:.1f}M"


def speed(tally: Tally) -> str:
    """Return the rate and what is left at it."""
    if tally.rate_per_s is None or tally.eta_s is None:
        return ""
    rate = tally.rate_per_s
    return (
        f"{rate:.1f}/s, {duration(tally.eta_s)} left" if rate < 10 else f"{rate:,.0f}/s, {duration(tally.eta_s)} left"
    )


def outcomes(tally: Tally) -> str:
    """Return the outcomes but those that nothing had."""
    counts = tally.counts
    named = (("succeeded", counts.succeeded), ("errored", counts.errored), ("expired", counts.expired))
    return ", ".join(f"{count:,} {name}" for name, count in named if count or name == "succeeded")


def tokens(tally: Tally) -> str:
    """Return the tokens so far."""
    usage = tally.usage
    read = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    return f"{short(read)} tokens in, {short(usage.output_tokens)} out"


class Bar:
    """A bar that is drawn again in place."""

    def __init__(self) -> None:
        self._progress = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}% of {task.fields[whole]}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("[green]{task.fields[outcomes]}[/]"),
            TextColumn("[dim]{task.fields[tokens]}[/]"),
            TextColumn("[yellow]{task.fields[trouble]}[/]", markup=True),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._shown = False

    def reading(self, lines: int) -> None:
        self._show(0, None, whole=f"{lines:,} lines read", speed="", outcomes="", tokens="", trouble="")

    def show(self, tally: Tally) -> None:
        self._show(
            tally.done,
            tally.total,
            whole=f"{tally.total:,}",
            speed=speed(tally),
            outcomes=outcomes(tally),
            tokens=tokens(tally),
            trouble=_plain(tally.trouble),
        )

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._shown:
            self._progress.stop()
            self._shown = False

    def _show(self, done: int, total: int | None, **fields: Any) -> None:
        if self._task is None:
            self._task = self._progress.add_task("run", total=total, **fields)
        if not self._shown:
            self._progress.start()
            self._shown = True
        self._progress.update(self._task, completed=done, total=total, **fields)


class Lines:
    """Plain lines, one every ten seconds."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()
        self._trouble: str | None = None

    def reading(self, lines: int) -> None:
        if self._due():
            self.say(f"{lines:,} lines read")

    def show(self, tally: Tally) -> None:
        if tally.trouble != self._trouble:
            self._trouble = tally.trouble
            self.say(f"waiting: {tally.trouble}" if tally.trouble else "going on")
        if self._due():
            parts = (f"{tally.done:,} of {tally.total:,}", speed(tally), outcomes(tally), tokens(tally))
            self.say("; ".join(part for part in parts if part))

    def say(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing is to be undone."""

    def _due(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._last_s + LINE_EVERY_S:
            return False
        self._last_s = now_s
        return True


def _plain(text: str | None) -> str:
    return (text or "").replace("[", "\\[")
