"""The rig's client: makes batches, cancels some, follows all to their end, and journals every promise it is given.

A create without an answer is sent again as an SDK does it: same bytes, `x-stainless-retry-count` one higher; every
second batch has an Idempotency-Key instead. Some creates are sent again although they were answered, as by a client that
never saw the answer, and must lead to the same batch. So there is at most one batch for each intent.
"""

import hashlib
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.rig.api import Answer, NoAnswer, call
from tests.rig.journal import Journal

PAUSE_S = 0.1
KINDS = ("plain",) * 92 + ("flaky",) * 4 + ("bad",) * 2 + ("broken",) * 2
MODELS = ("deep", "wide")
BULK_CHARS = 400_000
"""What makes every tenth body a large one, which is split by a process of its own."""


def make_requests(number: int, size: int, chance: random.Random) -> tuple[bytes, dict[str, str]]:
    """Return the body of batch `number`, and the kind of each of its requests by custom_id."""
    kinds, requests = {}, []
    systems = [f"system {number} {place} " + "x" * 200 for place in range(3)]
    for place in range(size):
        custom_id = f"b{number:05d}-{place:04d}"
        kinds[custom_id] = kind = chance.choice(KINDS)
        params: dict[str, Any] = {
            "model": chance.choice(MODELS),
            "max_tokens": 0 if kind == "broken" else 64,
            "system": "x" * BULK_CHARS if number % 10 == 3 and place == 0 else chance.choice(systems),
            "messages": [{"role": "user", "content": f"mark={custom_id};kind={kind};"}],
        }
        requests.append({"custom_id": custom_id, "params": params})
    return json.dumps({"requests": requests}).encode(), kinds


@dataclass
class Client:
    """One client of the server on `port`. `stop` ends the making of batches; what was made is still followed."""

    port: int
    journal: Journal
    seed: int
    sizes: tuple[int, int] = (1, 120)
    cancel_share: float = 0.15
    doubt_share: float = 0.1
    stop: threading.Event = field(default_factory=threading.Event)
    give_up: threading.Event = field(default_factory=threading.Event)
    open: dict[int, str] = field(default_factory=dict)
    made: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    _numbers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make_batches(self, open_max: int) -> None:
        """Make one batch after the other, while fewer than `open_max` are unfinished, until told to stop."""
        while not self.stop.is_set():
            if len(self.open) >= open_max:
                self.stop.wait(PAUSE_S)
                continue
            with self._lock:
                self._numbers += 1
                number = self._numbers
            self.make_one(number)

    def make_one(self, number: int) -> str | None:
        """Make batch `number`, sending again until there is an answer; return its id."""
        chance = random.Random(self.seed * 1_000_003 + number)
        body, kinds = make_requests(number, chance.randint(*self.sizes), chance)
        self.journal.note("intent", number, kinds=kinds)
        self.counts["requests"] += len(kinds)
        keyed = {"idempotency-key": f"rig-{self.seed}-{number}"} if number % 2 else {}
        answer, count = self._create_until_answered(body, keyed)
        if answer is not None and answer.status == 200 and chance.random() < self.doubt_share:
            first, self.counts["creates sent twice"] = answer, self.counts["creates sent twice"] + 1
            answer, _ = self._create_until_answered(body, keyed, count + 1)
            if answer is not None and answer.status == 200 and answer.json["id"] != first.json["id"]:
                self.complaints.append(f"creating once: batch {number} was made again by its own retry")
        if answer is None:
            return None
        if answer.status != 200:
            self.complaints.append(f"create of batch {number} answered {answer.status}: {answer.body[:200]!r}")
            return None
        made = str(answer.json["id"])
        self.journal.note("accepted", number, id=made)
        self.open[number] = self.made[number] = made
        self.counts["accepted"] += 1
        if chance.random() < self.cancel_share:
            self.give_up.wait(chance.random() * 2)
            self.cancel(number, made)
        return made

    def _create_until_answered(self, body: bytes, headers: dict[str, str], count: int = 0) -> tuple[Answer | None, int]:
        """Return the answer to a create, and the retry count under which it came."""
        while not self.give_up.is_set():
            try:
                sent = {**headers, "x-stainless-retry-count": str(count)}
                answer = call(self.port, "POST", "/v1/messages/batches", body, sent)
            except NoAnswer:
                self.counts["creates without an answer"] += 1
            else:
                if answer.status < 500 and answer.status != 429:
                    return answer, count
                self.counts[f"creates answered {answer.status}"] += 1
            count += 1
            self.give_up.wait(PAUSE_S)
        return None, count

    def cancel(self, number: int, made: str) -> None:
        """Cancel a batch; an answer is not needed, since asking twice is harmless."""
        self.journal.note("cancel", number)
        self.counts["cancels"] += 1
        for _ in range(20):
            try:
                if call(self.port, "POST", f"/v1/messages/batches/{made}/cancel", b"").status == 200:
                    return
            except NoAnswer:
                self.give_up.wait(PAUSE_S)

    def follow(self) -> None:
        """Watch the batches that were made and journal the end of each, until told to give up."""
        while not self.give_up.is_set():
            for number, made in list(self.open.items()):
                try:
                    self._look(number, made)
                except NoAnswer:
                    self.counts["looks without an answer"] += 1
                    break
            self.give_up.wait(PAUSE_S)

    def _look(self, number: int, made: str) -> None:
        answer = call(self.port, "GET", f"/v1/messages/batches/{made}", timeout_s=10)
        if answer.status >= 500:
            return
        if answer.status != 200:
            self.complaints.append(f"batch {number} ({made}) answered {answer.status}")
            del self.open[number]
            return
        if answer.json["processing_status"] != "ended":
            return
        results = call(self.port, "GET", f"/v1/messages/batches/{made}/results")
        if results.status >= 500:
            return
        self.journal.note(
            "ended",
            number,
            status=results.status,
            counts=answer.json["request_counts"],
            digest=hashlib.sha256(results.body).hexdigest(),
        )
        self.counts["ended"] += 1
        del self.open[number]

    def wait_for_made(self, count: int, timeout_s: float) -> None:
        """Wait until at least `count` batches were accepted."""
        deadline = time.monotonic() + timeout_s
        while len(self.made) < count and time.monotonic() < deadline:
            self.give_up.wait(PAUSE_S)

    def wait_for_all(self, timeout_s: float) -> bool:
        """Wait until every accepted batch has ended; return whether it came to that."""
        deadline = time.monotonic() + timeout_s
        while self.open and time.monotonic() < deadline:
            self.give_up.wait(PAUSE_S)
        return not self.open
