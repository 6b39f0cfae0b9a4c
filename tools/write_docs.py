"""Write the pages of `docs/` that come from the code: states, fault points, settings, metrics and commands.

`python tools/write_docs.py` writes them; with `--check` it only says which differ, and fails. The pages are never
edited by hand, so the table in `lowtide.domain.states` and the registry in `lowtide.faults` stay the one source.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
import typer.core

import lowtide
from lowtide import faults
from lowtide.api.metrics import METRICS
from lowtide.app import reference
from lowtide.cli.main import app
from lowtide.domain.states import (
    BATCH_TRANSITIONS,
    CHUNK_TRANSITIONS,
    BatchEvent,
    BatchState,
    ChunkEvent,
    ChunkState,
    next_batch_state,
    next_chunk_state,
)

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 100
GENERATED = "<!-- Written by tools/write_docs.py from {source}; run `make docs` after a change there. -->\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def diagram(edges: Iterable[tuple[str, str, str]], start: str, ends: Sequence[str]) -> str:
    """Return a Mermaid state diagram of (from, to, label) edges; edges between the same two states share an arrow."""
    lines = [f"    [*] --> {start}\n"]
    for (source, target), group in groupby(sorted(edges), key=lambda edge: edge[:2]):
        labels = dict.fromkeys(label for _, _, label in group)
        lines.append(f"    {source} --> {target}: {' / '.join(labels)}\n")
    lines += [f"    {end} --> [*]\n" for end in ends]
    return f"```mermaid\nstateDiagram-v2\n{''.join(lines)}```\n"


def batch_section() -> str:
    """Return the batch's diagram and its table of transitions."""
    edges = [(t.state.value, t.next.value, t.event.value) for t in BATCH_TRANSITIONS if t.state is not t.next]
    rows = [(t.state.value, t.event.value, t.actor.value, t.next.value, t.note) for t in BATCH_TRANSITIONS]
    return (
        diagram(edges, BatchState.IN_PROGRESS.value, [BatchState.DELETED.value])
        + "\n"
        + table(["batch is", "event", "caused by", "becomes", "note"], rows)
    )


def chunk_section() -> str:
    """Return the chunk's diagram and its table of transitions."""
    edges = [(t.state.value, t.next.value, t.event.value) for t in CHUNK_TRANSITIONS]
    rows = [
        (t.batch.value, t.state.value, t.event.value, t.actor.value, t.next.value, t.note) for t in CHUNK_TRANSITIONS
    ]
    return (
        diagram(edges, ChunkState.OPEN.value, [ChunkState.CLOSED.value])
        + "\n"
        + table(["batch is", "chunk is", "event", "caused by", "chunk becomes", "note"], rows)
    )


def batch_matrix() -> str:
    """Return every state of a batch against every event; a dot where nothing changes."""
    rows = [
        [f"**{state.value}**", *(getattr(next_batch_state(state, event), "value", "·") for event in BatchEvent)]
        for state in BatchState
    ]
    return table(["batch is", *(event.value for event in BatchEvent)], rows)


def chunk_matrix() -> str:
    """Return every state of a chunk, in a batch that runs or is canceling, against every event."""
    rows = [
        [
            batch.value,
            f"**{state.value}**",
            *(getattr(next_chunk_state(batch, state, event), "value", "·") for event in ChunkEvent),
        ]
        for batch in (BatchState.IN_PROGRESS, BatchState.CANCELING)
        for state in ChunkState
    ]
    return table(["batch is", "chunk is", *(event.value for event in ChunkEvent)], rows)


def states_page() -> str:
    """Return `docs/states.md`."""
    return f"""# States of batches and chunks

{GENERATED.format(source="`src/lowtide/domain/states.py`")}
Every transition, its cause and who may cause it. What is not here changes nothing. On the wire a batch is
`in_progress`, `canceling` or `ended`; an archived batch is shown as ended, a deleted one is not found.

## Batch

{batch_section()}
## Chunk

A chunk is 1 to 32 requests of one batch: the unit that a worker leases.

{chunk_section()}
## Cancel and expiry, cell by cell

A batch, by state and event (a dot: nothing changes):

{batch_matrix()}
A chunk, by the state of its batch, its own state and the event. Chunks of an ended batch are closed, and closed chunks
never move:

{chunk_matrix()}
Requests that were sent before a cancel are allowed to finish and count as they end. What was never sent becomes
`canceled` on a cancel and `expired` on expiry; a batch that is canceling when its time runs out gives `canceled`.
"""


def modules() -> Iterator[str]:
    """Yield the name of every module of Lowtide, but for the ones that run when imported."""
    for module in pkgutil.walk_packages(lowtide.__path__, "lowtide."):
        if (
            not module.name.endswith("__main__")
            and ".versions." not in module.name
            and ".migrations" not in module.name
        ):
            yield module.name


def fault_points_page() -> str:
    """Return `docs/fault-points.md`."""
    for name in modules():
        importlib.import_module(name)
    rows = [(f"`{name}`", point.says) for name, point in sorted(faults.registered().items())]
    actions = ", ".join(f"`{action}`" for action in faults.ACTIONS)
    return f"""# Fault points

{GENERATED.format(source="every `faults.point(…)` of the code")}
The places where a crash, a pause or an error would hurt most. They do nothing until `LOWTIDE_FAULTS` names one, as a
comma list of `name=action[:nth]`; the actions are {actions}. A point is set off once, the nth time it is passed.
`make crash` walks every point with every action and audits what is left.

{table(["point", "what happens inside it"], rows)}"""


def settings_page() -> str:
    """Return `docs/settings.md`."""
    return reference.page(GENERATED.format(source="`src/lowtide/app/settings.py`"))


def metrics_page() -> str:
    """Return `docs/metrics.md`."""
    rows = [
        [f"`{it.name}`", it.kind.value, ", ".join(f"`{label}`" for label in it.labels) or "none", it.says]
        for it in METRICS
    ]
    return f"""# Metrics

{GENERATED.format(source="`src/lowtide/api/metrics.py`")}
`GET /metrics` on the API's own address, in Prometheus' format. Calls from the same machine need no key; others need one
with the scope `admin`, which Prometheus sends by `authorization` in its scrape configuration. Every API process says the
same of the store; workers report to it every few seconds, and no counter of theirs goes back when one dies. Labels are
names of the configuration or of the code: no model, batch or workspace of a client is ever one.

`deploy/grafana/lowtide.json` is a dashboard of them: import it and choose your Prometheus.

{table(["metric", "kind", "labels", "what it says"], rows)}"""


def helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """Yield each command and its help as `--help` prints it, in the order of the code, groups before their commands."""
    widths = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.context_class(command, parent, info_name=name, **widths, **command.context_settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, typer.core.TyperGroup):
        for each in command.list_commands(context):
            yield from helps(command.get_command(context, each), each, context)


def commands_page() -> str:
    """Return `docs/reference/commands.md`."""
    found = helps(typer.main.get_command(app), "lowtide")
    sections = "\n".join(f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in found)
    return f"""# Commands

{GENERATED.format(source="the commands in `src/lowtide/cli`")}
What `--help` prints, command by command. A default stands in brackets. Settings that have no flag, and the
variables and the file that set them, are on the page of [settings](../settings.md).

Exit statuses, of every command unless its own text says otherwise:

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | it failed, or something did not succeed |
| 2 | a flag, a setting or the input is wrong; one sentence on standard error says what to do |
| 130 | interrupted |

{sections}"""


PAGES = {
    "states.md": states_page,
    "fault-points.md": fault_points_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "reference/commands.md": commands_page,
}


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` compare them; return the exit status."""
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run `make docs`")
        return 1
    print(f"docs: {len(PAGES)} pages, {len(stale)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
