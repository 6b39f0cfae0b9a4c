"""`lowtide batches show`: one batch, as far as its server tells."""

import msgspec
from rich.table import Table
from rich.text import Text

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.output import show as print_all
from lowtide.cli.batches.statuses import OK
from lowtide.cli.batches.text import ago_s, duration, expiry, local, pace, requests, status
from lowtide.client.shapes import BatchShape, Live


class _Document(msgspec.Struct):
    """What `--json` prints: the batch as the contract has it, and what only a Lowtide tells, or null."""

    batch: msgspec.Raw
    live: msgspec.Raw | None


def show(wanted: Wanted, batch_id: str) -> int:
    """Print a batch."""
    found, _ = wanted.api.batch(batch_id)
    live = wanted.api.live(batch_id)
    output = wanted.output
    if output.json:
        raw = None if live is None else msgspec.Raw(live.raw)
        output.document(msgspec.json.encode(_Document(msgspec.Raw(found.raw), raw)))
    elif output.quiet:
        output.line(found.batch.processing_status)
    else:
        _print(found.batch if live is None else live.batch)
    return OK


def _print(batch: BatchShape) -> None:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("status", status(batch))
    rows.add_row("requests", requests(batch.request_counts))
    rows.add_row("created", f"{local(batch.created_at)}, {duration(ago_s(batch.created_at))} ago")
    if batch.ended_at is None:
        rows.add_row("expires", f"{local(batch.expires_at)}, {expiry(batch).removeprefix('expires ')}")
    else:
        rows.add_row("ended", f"{local(batch.ended_at)}, {expiry(batch)}")
    standing = None
    if isinstance(batch, Live):
        standing = batch.standing_still
        if going := pace(batch):
            rows.add_row("pace", going)
        usage = batch.usage
        rows.add_row("tokens", f"{usage.input_tokens:,} in, {usage.output_tokens:,} out")
    print_all(Text(batch.id, style="bold"), rows)
    if standing is not None:
        print_all(Text(f"It stands still. {standing.text}", style="yellow"))
