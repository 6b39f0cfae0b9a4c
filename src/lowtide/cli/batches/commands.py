"""The commands of `lowtide batches`: their flags and their help. What each does stands in the module of its name.

Those modules are loaded when a command runs, so that help and completion answer at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lowtide.cli.batches.connection import BatchId, Timeout, Wanted, Yes, client_command

EPILOG = """\b
Exit statuses:
  0  done                               4  the batch ended, but not every request succeeded (watch)
  1  not found, refused or incomplete   5  --timeout has passed
  2  a flag or an input is wrong        130  interrupted
  3  the server cannot be reached"""

app = typer.Typer(
    help="Create, watch and read batches on any server of the Message Batches API, hosted or ours.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class OutcomeName(StrEnum):
    """How a request ended."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    CANCELED = "canceled"
    EXPIRED = "expired"


@app.command()
@client_command
def create(
    wanted: Wanted,
    *,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="Lines of {custom_id, params}, or the JSON body of a create.")
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Make another batch even if this input made one already.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The same key and input lead to one batch. [from the input]")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then watch it until it has ended.")] = False,
    timeout: Timeout = None,
) -> int:
    """Create a batch and print its id.

    The input may be larger than memory. Every line is checked before anything is sent. A Lowtide makes one batch of one
    input, however often it is sent; other servers make one each time.
    """
    from lowtide.cli.batches.create import create as work  # noqa: PLC0415 loaded when the command runs

    return work(wanted, file, again=again, idempotency_key=idempotency_key, watch=watch, timeout_s=timeout)


@app.command("list")
@client_command
def list_batches(
    wanted: Wanted,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many at the most.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Those older than this one.")] = None,
    before: Annotated[str | None, typer.Option(metavar="ID", help="Those newer than this one.")] = None,
) -> int:
    """List batches, newest first."""
    from lowtide.cli.batches.listing import list_batches as work  # noqa: PLC0415 loaded when the command runs

    return work(wanted, None if everything else limit, after=after, before=before)


@app.command()
@client_command
def show(wanted: Wanted, *, batch_id: BatchId) -> int:
    """Show a batch: how far it is, and, of a Lowtide, how fast and why it stands still."""
    from lowtide.cli.batches.show import show as work  # noqa: PLC0415 loaded when the command runs

    return work(wanted, batch_id)


@app.command()
@client_command
def watch(wanted: Wanted, *, batch_id: BatchId, timeout: Timeout = None) -> int:
    """Watch a batch until it has ended, then sum it up.

    The status is 0 if every request succeeded, else 4.
    """
    from lowtide.cli.batches.watch import watch_to_the_end as work  # noqa: PLC0415 loaded when the command runs

    return work(wanted, batch_id, timeout)


@app.command()
@client_command
def results(  # noqa: PLR0913 each argument is an option of the command
    wanted: Wanted,
    *,
    batch_id: BatchId,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE|-", help="Where to; FILE.part is kept of a broken download.")
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Begin now, and end with the batch.")] = False,
    outcome: Annotated[list[OutcomeName] | None, typer.Option(help="Only results of this outcome; may repeat.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Sum them up: outcomes, errors by kind, tokens.")] = False,
    timeout: Timeout = None,
) -> int:
    """Get the results of a batch, one line for each request.

    A broken download goes on where it was when the server allows it, even by another command later. FILE appears when it
    is complete: as many lines as requests.
    """
    from lowtide.cli.batches.results import Request, get  # noqa: PLC0415 loaded when the command runs

    names = frozenset(each.value for each in outcome or ())
    request = Request(batch_id, None if output == "-" else Path(output), names, force, follow, summary, timeout)
    return get(wanted, request)


@app.command()
@client_command
def cancel(wanted: Wanted, *, batch_id: BatchId, yes: Yes = False) -> int:
    """Cancel a batch: what was sent to a model is finished and kept, the rest is not run."""
    from lowtide.cli.batches.ending import cancel as work  # noqa: PLC0415 loaded when the command runs

    return work(wanted, batch_id, yes=yes)


@app.command()
@client_command
def delete(wanted: Wanted, *, batch_id: BatchId, yes: Yes = False) -> int:
    """Delete a batch that has ended, with its results."""
    from lowtide.cli.batches.ending import delete as work  # noqa: PLC0415 loaded when the command runs

    return work(wanted, batch_id, yes=yes)
