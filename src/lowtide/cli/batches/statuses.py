"""The exit statuses of the client commands, and how an error is told: one sentence, the server's words, no traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lowtide.client.errors import BrokenOff, ClientError, Unreachable, Unusable
from lowtide.client.watching import TimedOut

OK, FAILED, USAGE, UNREACHABLE, NOT_ALL, TIMED_OUT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 4, 5, 130, 141
"""NOT_ALL: the batch has ended, but not every request succeeded. The last two are 128 and the signal, as shells have it."""


@contextmanager
def told() -> Iterator[None]:
    """Turn what may happen to a client command into a sentence on standard error and an exit status."""
    try:
        yield
    except ClientError as error:
        sys.stderr.write(f"lowtide: {error}\n")
        raise typer.Exit(_status(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does. What Python would flush at its end goes nowhere either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"lowtide: {place}{error.strerror or error}.\n")
        raise typer.Exit(FAILED) from None


def _status(error: ClientError) -> int:
    match error:
        case Unusable():
            return USAGE
        case Unreachable() | BrokenOff():
            return UNREACHABLE
        case TimedOut():
            return TIMED_OUT
        case _:
            return FAILED
