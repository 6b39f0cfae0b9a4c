"""`lowtide batches create`: check the input, send it, print the id."""

import secrets
import sys

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.statuses import OK
from lowtide.cli.batches.text import duration
from lowtide.cli.batches.watch import watch_to_the_end
from lowtide.client.errors import BrokenOff
from lowtide.client.shapes import Found
from lowtide.client.source import Source, open_source

JUST_NOW_S = 60.0
"""A batch older than this was there before; younger, it may be the one that a lost answer was about."""


def create(
    wanted: Wanted, file: str, *, again: bool, idempotency_key: str | None, watch: bool, timeout_s: float | None
) -> int:
    """Create a batch and print its id, and watch it if that is wished."""
    with open_source(file, sys.stdin.buffer) as source:
        made = _send(wanted, source, idempotency_key or _key(source, again=again))
    output = wanted.output
    if output.json and not watch:
        output.document(made.raw)
    elif not output.json:
        output.line(made.batch.id)
    return watch_to_the_end(wanted, made.batch.id, timeout_s) if watch else OK


def _send(wanted: Wanted, source: Source, key: str) -> Found:
    api, output = wanted.api, wanted.output
    is_ours = api.is_ours()
    try:
        made, server_time_s = api.create(source.upload, key, again=is_ours)
    except BrokenOff as error:
        if not error.sent or is_ours:
            raise
        text = f"{error} The batch may have been created all the same: look at `lowtide batches list` first."
        raise BrokenOff(text) from None
    age_s = server_time_s - made.batch.created_at.timestamp()
    if age_s > JUST_NOW_S:
        output.say(f"This input made this batch {duration(age_s)} ago; --again makes another.")
    else:
        count = made.batch.request_counts.total
        output.say(f"Created a batch of {count:,} request{'' if count == 1 else 's'}.")
    return made


def _key(source: Source, *, again: bool) -> str:
    """Return an Idempotency-Key: the same for the same input, unless another batch is wished."""
    return f"lowtide-{source.digest}" + (f"-{secrets.token_hex(8)}" if again else "")
