"""`lowtide batches cancel` and `delete`: asked once more at a terminal, done at once in a script."""

import sys

import typer

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.statuses import FAILED, OK
from lowtide.cli.batches.text import requests
from lowtide.client.errors import Refused


def cancel(wanted: Wanted, batch_id: str, *, yes: bool) -> int:
    """Cancel a batch."""
    output = wanted.output
    if not yes and sys.stdin.isatty():
        found, _ = wanted.api.batch(batch_id)
        if not _agreed(f"Cancel {batch_id} ({requests(found.batch.request_counts)})?"):
            return FAILED
    found = wanted.api.cancel(batch_id)
    if output.json:
        output.document(found.raw)
    elif found.batch.has_ended:
        output.say("It has ended already; nothing was canceled.")
    else:
        output.say(f"Canceling: what is with a model is finished first. See: lowtide batches watch {batch_id}")
    return OK


def delete(wanted: Wanted, batch_id: str, *, yes: bool) -> int:
    """Delete a batch that has ended; of one that runs, say what to do first."""
    output = wanted.output
    if not yes and sys.stdin.isatty():
        found, _ = wanted.api.batch(batch_id)
        question = (
            f"Delete {batch_id} and its results ({requests(found.batch.request_counts)})? They cannot be had again."
        )
        if found.batch.has_ended and not _agreed(question):
            return FAILED
    try:
        deleted = wanted.api.delete(batch_id)
    except Refused as error:
        if error.status == 400:
            output.say(f"First: lowtide batches cancel {batch_id} && lowtide batches watch {batch_id}")
        raise
    output.document(deleted) if output.json else output.say(f"Deleted {batch_id}.")
    return OK


def _agreed(question: str) -> bool:
    """Ask on standard error; only a yes is one."""
    return typer.confirm(question, default=False, err=True)
