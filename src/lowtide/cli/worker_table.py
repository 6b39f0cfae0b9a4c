"""The workers of a server, as a table for a person or as the JSON that the server said."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.output import show, table
from lowtide.cli.batches.statuses import OK
from lowtide.cli.batches.text import ago_s, duration
from lowtide.client.shapes import one_line, read
from lowtide.client.workers import WorkerShape, WorkersShape

COLUMNS = ("worker", "running for", "heard of", "chunks", "in flight", "put aside", "trouble")
NONE_TEXT = "No worker is running: start one with `lowtide worker`, or `lowtide serve` without --no-worker."


def list_workers(wanted: Wanted) -> int:
    """Print the workers, oldest first."""
    data, output = wanted.api.workers(), wanted.output
    found = read(data, WorkersShape).data
    if output.json:
        output.document(one_line(data))
    elif output.quiet:
        for worker in found:
            output.line(worker.worker)
    elif found:
        _print(found)
    else:
        output.say(NONE_TEXT)
    return OK


def _print(found: Sequence[WorkerShape]) -> None:
    rows = table(COLUMNS, right=("running for", "heard of", "chunks", "in flight", "put aside"))
    for worker in found:
        in_flight, limit = (sum(getattr(it, name) for it in worker.upstreams) for name in ("in_flight", "limit"))
        rows.add_row(
            worker.worker,
            duration(ago_s(worker.since)),
            f"{worker.heartbeat_age_s:.1f} s ago",
            f"{worker.held_chunks:,}",
            f"{in_flight:,} of {limit:,}",
            f"{worker.put_aside:,}",
            Text("; ".join(_troubles(worker)) or "-"),
        )
    show(rows)


def _troubles(worker: WorkerShape) -> Iterator[str]:
    """Yield what keeps a worker from its work, in words."""
    if worker.store_trouble is not None:
        yield f"cannot store results ({worker.store_trouble})"
    for upstream in worker.upstreams:
        if upstream.trouble is not None:
            said = f": {upstream.trouble.text}" if upstream.trouble.text else ""
            yield f"{upstream.name} {upstream.trouble.reason.replace('_', ' ')}{said}"
