"""`lowtide doctor`: what would keep a server from working, line by line, with what to do about it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowtide.cli.options import Config, ServerData

if TYPE_CHECKING:
    from lowtide.app.doctor.findings import Finding

FAILED = 1
EXAMPLES = """\b
Examples:
  lowtide doctor --upstream http://127.0.0.1:8000
  lowtide doctor --config /etc/lowtide.toml --json
Exit statuses: 0 nothing failed, 1 something did, 2 the settings cannot be used."""

_COLOURS = {"OK": typer.colors.GREEN, "WARN": typer.colors.YELLOW, "FAIL": typer.colors.RED}


def doctor(
    *,
    data: ServerData = None,
    upstream: Annotated[
        list[str] | None, typer.Option("--upstream", metavar="URL", help="A model server; may repeat.")
    ] = None,
    gguf: Annotated[
        str | None, typer.Option("--gguf", metavar="PATH", help="The model of the embedded engine.")
    ] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each check.")] = False,
) -> None:
    """Check the disk, the clock, limits, stores and upstreams, before a start or beside a server that runs."""
    from lowtide.app.commands import run_doctor  # noqa: PLC0415 loaded when the command runs

    flags: dict[str, Any] = {"data": data, "upstreams": [{"url": url} for url in upstream or ()]}
    flags["engine"] = {"gguf": gguf} if gguf else None
    given = {name: value for name, value in flags.items() if value}
    raise typer.Exit(0 if run_doctor(given, config, _show_json if as_json else _show) else FAILED)


def _show(finding: "Finding") -> None:
    level = typer.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
    typer.echo(f"{level}  {finding.subject:<14}  {finding.text}")
    if finding.do:
        typer.echo(f"{'':<22}→ {finding.do}")


def _show_json(finding: "Finding") -> None:
    line = {"level": finding.level, "subject": finding.subject, "text": finding.text, "do": finding.do or None}
    typer.echo(json.dumps(line, ensure_ascii=False))
