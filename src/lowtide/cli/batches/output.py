"""What the client commands print, and where: results on standard output, everything said on the way on standard error.

Three voices: tables and sentences for people, JSON for programs (`--json`: one document, or one per line), and
`--quiet`, which leaves the least that a script needs. A pipe gets no colours and no cut columns.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 400
"""Columns for a reader that is no terminal."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a command speaks."""

    json: bool
    quiet: bool

    def say(self, text: str) -> None:
        """Tell a person what goes on."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def line(self, text: str) -> None:
        """Print a line of the outcome."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def document(self, data: bytes) -> None:
        """Print JSON that is on one line."""
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()


def table(columns: Sequence[str], *, right: Sequence[str] = ()) -> Table:
    """Return an empty table."""
    made = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=name == "id")
    return made


def show(*pieces: Table | Text) -> None:
    """Print on standard output, as wide as it is."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    with console.capture() as printed:
        for piece in pieces:
            console.print(piece)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))
    sys.stdout.flush()
