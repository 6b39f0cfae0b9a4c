"""`lowtide keys`: making, listing, rotating and revoking the keys of a server, on its data directory.

The server may run meanwhile: what changes counts within two seconds. The text of a new key is all that goes to standard
output, so that `KEY=$(lowtide keys create …)` holds it; it is shown this once and kept nowhere.
"""

import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowtide.cli.options import Config, Json, ServerData
from lowtide.cli.rows import aligned
from lowtide.domain.errors import SettingsError
from lowtide.domain.keys import MODEL_PATTERN, NAME_PATTERN, Scope
from lowtide.domain.times import DAY_US, HOUR_US, MINUTE_US, format_time

if TYPE_CHECKING:
    from lowtide.app.access import Made
    from lowtide.ports.access import AccessStore, Key

_UNITS_US = {"m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_DURATION = re.compile(r"([0-9]{1,5})([mhdw])")

EXAMPLES = """\b
Examples:
  KEY=$(lowtide keys create --data /srv/lowtide)
  lowtide keys create --workspace research --name nightly --expires 90d --models "qwen*"
  lowtide keys rotate key_01… --grace 24h"""

app = typer.Typer(
    name="keys",
    help="Make and revoke the keys that callers need. Without any, this machine alone may call.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The id of a key, as `lowtide keys list` shows it.")]


@app.command()
def create(  # noqa: PLR0913  # each argument is an option of the command
    *,
    workspace: Annotated[str, typer.Option(metavar="NAME", help="The workspace that it belongs to.")] = "default",
    name: Annotated[str, typer.Option(metavar="NAME", help="What lists and logs call it.")] = "key",
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            metavar="batches|messages|admin", help="What it may be used for; may repeat. [batches and messages]"
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="When it stops working: 30m, 12h, 90d, 8w or never.")
    ] = "never",
    models: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Models that it may use; may repeat. [all]")
    ] = None,
    data: ServerData = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    from lowtide.app.access import make_key, new_key_of, on_store  # noqa: PLC0415 loaded when the command runs

    scopes = frozenset(scope or (Scope.BATCHES, Scope.MESSAGES))
    lifetime_us = None if expires == "never" else duration_us("expires", expires)
    new, secret = new_key_of(workspace, checked_name(name), scopes, _patterns(models or ()), lifetime_us)

    async def work(store: "AccessStore") -> "Made":
        return await make_key(store, new, secret)

    made = on_store(given(data), config, work, make=True)
    _show(made, as_json=as_json)
    _say(
        f"{made.key.id} of the workspace {made.key.workspace.name} may be used for {_what(made.key)}, {_until(made.key)}."
    )
    _say("It is shown this once.")
    if made.first:
        _say("It is the first key: from now on, within two seconds, every call of this server needs one.")


@app.command("list")
def list_keys(
    *,
    workspace: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this workspace.")] = None,
    data: ServerData = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the keys, never their text."""
    from lowtide.app.access import on_store  # noqa: PLC0415 likewise

    async def work(store: "AccessStore") -> "Sequence[Key]":
        return await store.keys(workspace)

    keys = on_store(given(data), config, work)
    if as_json:
        print(json.dumps([_shape(key) for key in keys], indent=2))  # noqa: T201 a command's own words
        return
    rows = [
        (key.id, key.name, key.workspace.name, _scopes(key), _models(key), _day(key.created_us), _state(key))
        for key in keys
    ]
    head = ("ID", "NAME", "WORKSPACE", "SCOPES", "MODELS", "CREATED", "STATE")
    sys.stdout.write(aligned(head, rows) if rows else "There is no key yet: this machine alone may call.\n")


@app.command()
def revoke(key: KeyId, *, data: ServerData = None, config: Config = None, as_json: Json = False) -> None:
    """Make a key useless, for good."""
    from lowtide.app.access import on_store  # noqa: PLC0415 likewise

    async def work(store: "AccessStore") -> "Key":
        return await store.revoke_key(key)

    revoked = on_store(given(data), config, work)
    if as_json:
        print(json.dumps(_shape(revoked)))  # noqa: T201 a command's own words
    else:
        sys.stdout.write(f"{revoked.id} is revoked: calls with it are refused within two seconds.\n")


@app.command()
def rotate(
    key: KeyId,
    *,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key still works: 0m, 30m, 24h, 7d.")
    ] = "24h",
    data: ServerData = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a key's successor, print it this once, and let the key end after a grace."""
    from lowtide.app.access import on_store, rotate_key  # noqa: PLC0415 likewise

    grace_us = duration_us("grace", grace)

    async def work(store: "AccessStore") -> "tuple[Made, Key]":
        return await rotate_key(store, key, grace_us)

    made, old = on_store(given(data), config, work)
    _show(made, as_json=as_json)
    _say(f"{made.key.id} takes the place of {old.id}, which works {_until(old)}. It is shown this once.")


def given(data: str | None) -> dict[str, Any]:
    """Return the flag, if it was given, as a setting."""
    return {} if data is None else {"data": data}


def checked_name(name: str) -> str:
    """Return a name that may stand in tables, logs and metrics; raises SettingsError."""
    if NAME_PATTERN.fullmatch(name):
        return name
    raise SettingsError(
        "A name should be 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first."
    )


def duration_us(flag: str, text: str) -> int:
    """Return the microseconds that a text such as `90d` means; raises SettingsError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise SettingsError(f'The flag --{flag} is "{text}", but it should be a time such as 30m, 12h, 90d or 8w.')
    return int(found[1]) * _UNITS_US[found[2]]


def _patterns(models: Sequence[str]) -> tuple[str, ...]:
    for pattern in models:
        if not MODEL_PATTERN.fullmatch(pattern):
            raise SettingsError("The flag --models should be a model's name or a pattern such as claude-*.")
    return tuple(models)


def _show(made: "Made", *, as_json: bool) -> None:
    text = made.secret.reveal()
    print(json.dumps({**_shape(made.key), "key": text}) if as_json else text, flush=True)  # noqa: T201 its only showing


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _shape(key: "Key") -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "workspace": key.workspace.name,
        "workspace_id": key.workspace.id,
        "scopes": sorted(key.scopes),
        "models": list(key.models),
        "created_at": format_time(key.created_us),
        "expires_at": None if key.expires_us is None else format_time(key.expires_us),
        "revoked_at": None if key.revoked_us is None else format_time(key.revoked_us),
    }


def _state(key: "Key") -> str:
    if key.revoked_us is not None:
        return f"revoked {_day(key.revoked_us)}"
    return f"valid {_until(key)}" if key.is_valid(_now_us()) else f"expired {_day(key.expires_us or 0)}"


def _now_us() -> int:
    from lowtide.app.compose import CLOCK  # noqa: PLC0415 likewise

    return CLOCK.wall_us()


def _what(key: "Key") -> str:
    return f"{_scopes(key)}, with {'any model' if not key.models else 'the models ' + _models(key)}"


def _scopes(key: "Key") -> str:
    return ",".join(sorted(key.scopes))


def _models(key: "Key") -> str:
    return ",".join(key.models) or "all"


def _until(key: "Key") -> str:
    return "for good" if key.expires_us is None else f"until {format_time(key.expires_us)[:16]}Z"


def _day(moment_us: int) -> str:
    return format_time(moment_us)[:10]
