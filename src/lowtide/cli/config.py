"""`lowtide config`: whether the settings can be used, and what they are with where each came from."""

import json
from typing import Any

import typer

from lowtide.cli.options import Config, Json

EXAMPLES = """\b
Examples:
  lowtide config check --config /etc/lowtide.toml
  lowtide config show
  LOWTIDE_PORT=9000 lowtide config show --json"""

app = typer.Typer(
    name="config",
    help="Check and show the settings: command line over environment over file over defaults.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def check(*, config: Config = None) -> None:
    """Say whether a server could start with these settings: status 2 and one sentence if not.

    Keys must be where key_env and key_file say. Whether upstreams answer is what `lowtide doctor` looks at.
    """
    from lowtide.app.commands import check_settings  # noqa: PLC0415 loaded when the command runs

    settings, places = check_settings(config)
    count = len(settings.upstreams)
    named = f"{count} upstream{'' if count == 1 else 's'}"
    typer.echo(f"The settings can be used ({places}): {named}, data in {settings.data}.")


@app.command()
def show(*, config: Config = None, as_json: Json = False) -> None:
    """Print every setting in effect with where it came from, as a file that says the same. Keys are never in it."""
    from lowtide.app.commands import effective_settings  # noqa: PLC0415 loaded when the command runs
    from lowtide.app.effective import as_toml  # noqa: PLC0415 likewise

    found = effective_settings(config)
    if not as_json:
        typer.echo(as_toml(found), nl=False)
        return
    shown: list[dict[str, Any]] = [{"name": it.name, "value": it.value, "source": it.place} for it in found]
    typer.echo(json.dumps(shown, ensure_ascii=False))
