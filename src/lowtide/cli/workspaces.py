"""`lowtide workspaces`: the tenants of a server and what each may do at once, on the server's data directory."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowtide.cli.keys import checked_name, given
from lowtide.cli.options import Config, Json, ServerData
from lowtide.cli.rows import aligned
from lowtide.domain.errors import SettingsError
from lowtide.domain.times import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowtide.ports.access import AccessStore, Workspace

SERVERS = "default"
EXAMPLES = """\b
Examples:
  lowtide workspaces create research --data /srv/lowtide
  lowtide workspaces limits research --calls-per-minute 600 --queued-requests 200000
  lowtide workspaces limits research --queued-requests default"""

app = typer.Typer(
    name="workspaces",
    help="Workspaces keep batches apart: a key sees those of its own workspace alone.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the workspace.")]
Calls = Annotated[
    str | None,
    typer.Option(
        "--calls-per-minute", metavar="N", help="Calls it may make in a minute; 0: any number, default: the server's."
    ),
]
Queued = Annotated[
    str | None,
    typer.Option(
        "--queued-requests",
        metavar="N",
        help="Requests it may have in processing; 0: any number, default: the server's.",
    ),
]


@app.command()
def create(
    name: Name,
    *,
    calls: Calls = None,
    queued: Queued = None,
    data: ServerData = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a workspace."""
    from lowtide.app.access import make_workspace, on_store  # noqa: PLC0415 loaded when the command runs
    from lowtide.ports.access import WorkspaceLimits  # noqa: PLC0415 likewise

    limits = WorkspaceLimits(**_changes(calls, queued))
    checked_name(name)

    async def work(store: "AccessStore") -> "Workspace":
        return await make_workspace(store, name, limits)

    _show([on_store(given(data), config, work, make=True)], as_json=as_json)


@app.command("list")
def list_workspaces(*, data: ServerData = None, config: Config = None, as_json: Json = False) -> None:
    """List the workspaces and their limits."""
    from lowtide.app.access import on_store  # noqa: PLC0415 likewise

    async def work(store: "AccessStore") -> "Sequence[Workspace]":
        return await store.workspaces()

    _show(on_store(given(data), config, work), as_json=as_json)


@app.command("limits")
def set_limits(
    name: Name,
    *,
    calls: Calls = None,
    queued: Queued = None,
    data: ServerData = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a workspace's limits, or change those that are given."""
    from lowtide.app.access import change_limits, on_store  # noqa: PLC0415 likewise

    changes = _changes(calls, queued)

    async def work(store: "AccessStore") -> "Workspace":
        return await change_limits(store, name, changes)

    _show([on_store(given(data), config, work)], as_json=as_json)


def _changes(calls: str | None, queued: str | None) -> dict[str, int | None]:
    flags = (("calls-per-minute", "calls_per_minute_max", calls), ("queued-requests", "queued_requests_max", queued))
    return {name: _limit(flag, text) for flag, name, text in flags if text is not None}


def _limit(flag: str, text: str) -> int | None:
    if text == SERVERS:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise SettingsError(f'The flag --{flag} is "{text}", but it should be a whole number or "{SERVERS}".')
    return int(text)


def _show(workspaces: "Sequence[Workspace]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_shape(each) for each in workspaces], indent=2))  # noqa: T201 a command's own words
        return
    rows = [
        (
            each.name,
            each.id,
            _shown(each.limits.calls_per_minute_max),
            _shown(each.limits.queued_requests_max),
            format_time(each.created_us)[:10],
        )
        for each in workspaces
    ]
    sys.stdout.write(aligned(("NAME", "ID", "CALLS/MIN", "QUEUED REQUESTS", "CREATED"), rows))


def _shown(limit: int | None) -> str:
    return SERVERS if limit is None else str(limit) if limit else "any"


def _shape(workspace: "Workspace") -> dict[str, Any]:
    return {
        "id": workspace.id,
        "name": workspace.name,
        "created_at": format_time(workspace.created_us),
        "calls_per_minute_max": workspace.limits.calls_per_minute_max,
        "queued_requests_max": workspace.limits.queued_requests_max,
    }
