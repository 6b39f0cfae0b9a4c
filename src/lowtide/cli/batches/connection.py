"""The flags that every client command has, and what they mean: which server, which key, how to speak.

The one place of the client commands that reads the environment. A key comes from there or from a file, never from the
command line, where other users of the machine would see it.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lowtide.cli.batches.output import Output
    from lowtide.client.api import Api

KEY_VARIABLES = ("LOWTIDE_API_KEY", "ANTHROPIC_API_KEY")

BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch, such as msgbatch_01….")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask at a terminal.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Stop waiting then, with status 5.")
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command works with: a server, and a way to speak."""

    api: "Api"
    output: "Output"


def wanted(  # noqa: PLR0913 each argument is an option of every command
    *,
    url: Annotated[
        str, typer.Option(metavar="URL", envvar="LOWTIDE_URL", help="The server; by default a Lowtide on this machine.")
    ] = "http://127.0.0.1:8787",
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file with the key; else LOWTIDE_API_KEY, else ANTHROPIC_API_KEY."),
    ] = None,
    api_version: Annotated[
        str, typer.Option(metavar="DATE", help="The `anthropic-version` to ask for.")
    ] = "2023-06-01",
    connect_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="How long a connection may take.")
    ] = 10.0,
    idle_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="How long the server may send nothing.")
    ] = 120.0,
    retries: Annotated[
        int, typer.Option(metavar="N", min=0, help="Further tries after 429, 5xx or a cut; retry-after counts.")
    ] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the least that a script needs.")] = False,
) -> Wanted:
    """Return what the flags of a command mean; raises Unusable."""
    from lowtide.cli.batches.output import Output  # noqa: PLC0415 loaded when a command runs
    from lowtide.client.api import Api  # noqa: PLC0415 likewise
    from lowtide.client.server import Server, read_url  # noqa: PLC0415 likewise

    output = Output(json=json, quiet=quiet)
    server = Server(read_url(url), _key(key_file), api_version, connect_timeout, idle_timeout, retries)
    return Wanted(Api(server, output.say), output)


def client_command(work: Callable[..., int]) -> Callable[..., None]:
    """Return `work` as a command: its own flags and those of `wanted`, which become its first argument.

    What `work` returns is the exit status; what it raises is told as `statuses` says.
    """
    shared = inspect.signature(wanted).parameters
    first, *own = inspect.signature(work).parameters.values()
    assert first.name == "wanted"

    def command(**values: Any) -> None:
        from lowtide.cli.batches.statuses import told  # noqa: PLC0415 loaded when a command runs

        with told():
            status = work(wanted(**{name: values.pop(name) for name in shared}), **values)
        raise typer.Exit(status)

    command.__name__, command.__doc__ = work.__name__, work.__doc__
    parameters = [*own, *shared.values()]
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _key(key_file: Path | None) -> str | None:
    from lowtide.client.server import read_key, read_key_file  # noqa: PLC0415 loaded when a command runs

    if key_file is not None:
        return read_key_file(key_file)
    for variable in KEY_VARIABLES:
        if text := os.environ.get(variable):
            return read_key(text, f"The environment variable {variable}")
    return None
