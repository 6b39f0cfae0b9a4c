"""The `lowtide` command: its subcommands, their flags, and how an error is told.

Commands import what they need when they run, so that `lowtide --help` answers at once. An error that a person can mend
is one sentence on standard error and an exit status of 2, never a traceback.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import lowtide
from lowtide.cli import config as config_command
from lowtide.cli import doctor as doctor_command
from lowtide.cli import keys, workers, workspaces
from lowtide.cli.batches.commands import app as batches
from lowtide.cli.options import Config
from lowtide.cli.run import EXAMPLES as RUN_EXAMPLES
from lowtide.cli.run import run
from lowtide.cli.simulate import simulate
from lowtide.domain.errors import SettingsError

UNUSABLE, INTERRUPTED = 2, 130

SERVE_EXAMPLES = """\b
Examples:
  lowtide serve --upstream http://127.0.0.1:8000
  lowtide serve --gguf qwen3-8b-q4_k_m.gguf
  lowtide serve --data /srv/lowtide --port 9000 --workers 2 --config lowtide.toml"""
WORKER_EXAMPLE = """\b
Example:
  lowtide worker --data /srv/lowtide --upstream http://127.0.0.1:8000"""

app = typer.Typer(
    name="lowtide",
    help="A self-hosted server of the Message Batches API, on the model servers you already have.",
    epilog="Try it without a model: lowtide simulate, then lowtide serve --upstream http://127.0.0.1:8788.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help="Where everything is stored; made if missing.")]
UpstreamUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        metavar="URL",
        help="A model server that answers /v1/messages and takes every model; may repeat, replaces the file's.",
    ),
]


def _version(wanted: bool) -> None:  # noqa: FBT001 typer calls it so
    if wanted:
        typer.echo(f"lowtide {lowtide.__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A self-hosted server of the Message Batches API, on the model servers you already have."""


@app.command(epilog=SERVE_EXAMPLES)
def serve(  # noqa: PLR0913 each argument is an option of the command
    *,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The address to listen on; with a key, any. [127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The port to listen on; 0 takes a free one. [8787]")
    ] = None,
    data: Data = None,
    upstream: UpstreamUrls = None,
    gguf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serve this model by the embedded llama.cpp, as one upstream.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes to start. [1]")] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Start none: `lowtide worker` does.")] = False,
    config: Config = None,
) -> None:
    """Run the API and its workers, and keep them running.

    Every setting, and the file and the variables that set it, is in docs/settings.md.
    """
    from lowtide.app.commands import run_serve  # noqa: PLC0415 loaded when the command runs

    engine = None if gguf is None else {"gguf": gguf}
    flags = {"host": host, "port": port, "data": data, "workers": workers, "engine": engine}
    raise typer.Exit(run_serve(_given(flags, upstream), config, with_workers=not no_worker))


@app.command(epilog=WORKER_EXAMPLE)
def worker(*, data: Data = None, upstream: UpstreamUrls = None, config: Config = None) -> None:
    """Run one more worker on the data of a server on this machine."""
    from lowtide.app.commands import run_worker  # noqa: PLC0415 loaded when the command runs

    raise typer.Exit(run_worker(_given({"data": data}, upstream), config))


app.command(epilog=RUN_EXAMPLES)(run)
app.command()(simulate)
app.command(epilog=doctor_command.EXAMPLES)(doctor_command.doctor)
app.add_typer(config_command.app)
app.add_typer(workers.app)
app.add_typer(keys.app)
app.add_typer(workspaces.app)
app.add_typer(batches, name="batches")


def _given(flags: dict[str, Any], upstreams: list[str] | None) -> dict[str, Any]:
    """Return the flags that were given, as settings."""
    given = {name: value for name, value in flags.items() if value is not None}
    return given | ({"upstreams": [{"url": url} for url in upstreams]} if upstreams else {})


def main() -> None:
    """Run the command line and exit."""
    try:
        app()
    except SettingsError as error:
        sys.stderr.write(f"lowtide: {error}\n")
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
