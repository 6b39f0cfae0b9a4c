"""`lowtide batches create`: check the input, send it, print the id."""

import secrets
import sys
from http import HTTPStatus

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.statuses import OK
from lowtide.cli.batches.text import ago_s, duration
from lowtide.cli.batches.watch import watch_to_the_end
from lowtide.client.api import Api
from lowtide.client.errors import BrokenOff, Refused
from lowtide.client.shapes import Found
from lowtide.client.source import Source, open_source


def create(
    wanted: Wanted, file: str, *, again: bool, idempotency_key: str | None, watch: bool, timeout_s: float | None
) -> int:
    """Create a batch and print its id, and watch it if that is wished."""
    with open_source(file, sys.stdin.buffer) as source:
        made = _make(wanted, source, idempotency_key, again=again)
    output = wanted.output
    if output.json and not watch:
        output.document(made.raw)
    elif not output.json:
        output.line(made.batch.id)
    return watch_to_the_end(wanted, made.batch.id, timeout_s) if watch else OK


def _make(wanted: Wanted, source: Source, key: str | None, *, again: bool) -> Found:
    """Create a batch, or find the one that this input made before."""
    api, output = wanted.api, wanted.output
    greeting = api.greet()
    made = _send(api, source, key or _key(source, again=again), is_ours=greeting.is_ours)
    time_s = greeting.time_s if greeting.is_ours else None
    existed = time_s is not None and made.batch.created_at.timestamp() < time_s
    if existed and key is None and not _is_there(api, made.batch.id):
        made, existed = _send(api, source, _key(source, again=True), is_ours=greeting.is_ours), False
    if existed:
        output.say(f"This input made this batch {duration(ago_s(made.batch.created_at))} ago; --again makes another.")
    else:
        count = made.batch.request_counts.total
        output.say(f"Created a batch of {count:,} request{'' if count == 1 else 's'}.")
    return made


def _send(api: Api, source: Source, key: str, *, is_ours: bool) -> Found:
    try:
        return api.create(source.upload, key, again=is_ours)
    except BrokenOff as error:
        if not error.sent or is_ours:
            raise
        text = f"{error} The batch may have been created all the same: look at `lowtide batches list` first."
        raise BrokenOff(text) from None


def _is_there(api: Api, batch_id: str) -> bool:
    """Tell whether a batch that was made before still is; a key outlives a batch that was deleted."""
    try:
        api.batch(batch_id)
    except Refused as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


def _key(source: Source, *, again: bool) -> str:
    """Return an Idempotency-Key: the same for the same input, unless another batch is wished."""
    return f"lowtide-{source.digest}" + (f"-{secrets.token_hex(8)}" if again else "")
