"""The client's journal: what it meant to do, and what it was promised, each line on disk before it counts.

Events, one JSON object a line, all with `at` (wall time in seconds) and `batch` (the client's own number):
`intent` (custom_ids with their kinds), `accepted` (id), `cancel` and `deleted` (about to be asked), `ended` (counts and a digest of the results).
"""

import json
import os
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of events. `note` returns once the event is on disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._file)

    def note(self, event: str, batch: int, **more: Any) -> None:
        line = json.dumps({"event": event, "batch": batch, "at": time.time(), **more})
        with self._lock:
            os.write(self._file, line.encode() + b"\n")
            os.fdatasync(self._file)


@dataclass
class Promise:
    """What the journal says about one batch."""

    kinds: dict[str, str]
    id: str | None = None
    accepted_at: float | None = None
    canceled: bool = False
    deleted: bool = False
    ended: dict[str, Any] | None = None
    ended_at: float | None = None


@dataclass
class Promises:
    """What the journal says, until a moment."""

    by_number: dict[int, Promise] = field(default_factory=dict)

    @property
    def accepted(self) -> list[Promise]:
        return [promise for promise in self.by_number.values() if promise.id is not None]


def read(path: Path, until: float = float("inf")) -> Promises:
    """Return what the journal at `path` says of the time before `until`."""
    promises = Promises()
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "intent":
            promises.by_number[event["batch"]] = Promise(event["kinds"])
        promise = promises.by_number[event["batch"]]
        if event["event"] == "cancel":  # intentions: the server may have had them whatever came of the answer
            promise.canceled = True
        elif event["event"] == "deleted":
            promise.deleted = True
        if event["at"] > until:
            continue
        if event["event"] == "accepted":
            promise.id, promise.accepted_at = event["id"], event["at"]
        elif event["event"] == "ended":
            promise.ended, promise.ended_at = event, event["at"]
    return promises
