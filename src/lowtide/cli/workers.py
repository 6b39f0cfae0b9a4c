"""`lowtide workers`: who works for a server, and what keeps them from it."""

import typer

from lowtide.cli.batches.connection import Wanted, client_command

EXAMPLES = """\b
Examples:
  lowtide workers list
  lowtide workers list --url http://127.0.0.1:9000 --json"""

app = typer.Typer(
    name="workers",
    help="See the workers of a server of ours.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def workers() -> None:
    """See the workers of a server of ours."""


@app.command(name="list")
@client_command
def list_(wanted: Wanted) -> int:
    """List the workers that live: what each holds, and which upstreams are in trouble."""
    from lowtide.cli.worker_table import list_workers  # noqa: PLC0415 loaded when the command runs

    return list_workers(wanted)
