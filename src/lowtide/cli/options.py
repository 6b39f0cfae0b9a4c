"""Options that mean the same wherever they are given."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings; else LOWTIDE_CONFIG, else ./lowtide.toml if it exists."),
]
ServerData = Annotated[str | None, typer.Option("--data", metavar="DIR", help="The data directory of the server.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
