"""Yields the example requests, as many as wanted, each with a custom_id of its own.

    from load import examples
    batch = client.messages.batches.create(requests=list(examples(1000)))

Past the files' own number the requests come again, numbered, and with a line in their last turn that makes each a
different request: results can then be told apart, while shared beginnings stay shared.
"""

import copy
import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = ("moderation.jsonl", "extraction.jsonl", "conversations.jsonl", "images.jsonl")


def originals() -> list[dict[str, Any]]:
    """Return the requests of the files, in order."""
    return [json.loads(line) for name in FILES for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def examples(number: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield `number` requests, or without a number those of the files once."""
    once = originals()
    yield from islice(_rounds(once), len(once) if number is None else number)


def _rounds(once: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from once
    for turn in count(2):
        for request in once:
            yield _varied(request, turn)


def _varied(request: dict[str, Any], turn: int) -> dict[str, Any]:
    varied = copy.deepcopy(request)
    varied["custom_id"] = f"{request['custom_id'][:56]}_r{turn}"
    last = varied["params"]["messages"][-1]
    note = f"\n\n(Reading number {turn}.)"
    if isinstance(last["content"], str):
        last["content"] += note
    else:
        last["content"].append({"type": "text", "text": note.strip()})
    return varied
