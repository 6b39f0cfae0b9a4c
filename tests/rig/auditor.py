"""The auditor: compares what a client was promised with what the server has, and believes neither.

It reads the client's journal, the upstream's log, the API, the SQLite file and the folder of objects, and imports
nothing of Lowtide. Each check names the invariant it holds the server to; `Findings.violations` is empty when all hold.
Run it alone on any state: `python -m tests.rig.auditor --port P --data DIR --journal FILE --calls FILE`.
"""

import argparse
import hashlib
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rig.api import Answer, all_batches, call
from tests.rig.journal import Promise, Promises, read
from tests.rig.upstream import usage_of

ECHO = re.compile(r"^echo ([A-Za-z0-9_-]+) call (\d+)$")
USAGE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
OUTCOMES = ("succeeded", "errored", "canceled", "expired")
ENDS = {"plain": {"succeeded"}, "flaky": {"succeeded"}, "bad": {"errored"}, "broken": {"errored"}}
"""How a request of each kind may end, cancel and expiry aside."""


@dataclass
class Findings:
    """What an audit found."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def blame(self, invariant: str, text: str) -> None:
        self.violations.append(f"{invariant}: {text}")


@dataclass(frozen=True)
class Audit:
    """What is audited: a server that runs and is at rest, and what its client was promised before `until`."""

    port: int
    data: Path
    journal: Path
    calls: Path
    until: float = float("inf")
    may_expire: bool = False

    def run(self) -> Findings:
        """Make every check and return what it found."""
        findings, promises = Findings(), read(self.journal, self.until)
        calls = logged_calls(self.calls)
        listed = {batch["id"]: batch for batch in all_batches(self.port)}
        owners = self._check_owners(findings, promises, listed)
        for batch_id, batch in listed.items():
            number = owners.get(batch_id)
            if number is not None:
                self._check_batch(findings, promises.by_number[number], batch, calls)
        self._check_rows(findings)
        findings.counts["upstream calls"] = sum(calls.per_mark.values())
        findings.counts["upstream calls repeated"] = calls.repeated
        return findings

    def _check_owners(self, findings: Findings, promises: Promises, listed: dict[str, Any]) -> dict[str, int]:
        """accepted-is-durable and creating once: every promise is kept by one batch, every batch has one intent."""
        for number, promise in promises.by_number.items():
            if promise.id is not None and promise.id not in listed and not promise.deleted:
                findings.blame("accepted-is-durable", f"batch {number} ({promise.id}) was accepted and is not listed")
        owners: dict[str, int] = {}
        for batch_id, batch in listed.items():
            if batch["processing_status"] != "ended":
                findings.blame("n-in-n-out", f"{batch_id} is {batch['processing_status']}")
                continue
            first = next(lines(self._results(batch_id)), None)
            if first is None:
                findings.blame("n-in-n-out", f"{batch_id} has no results")
                continue
            number = int(first["custom_id"][1:6])
            if number not in promises.by_number:
                findings.blame("creating once", f"{batch_id} is of no client")
            elif number in owners.values():
                findings.blame("creating once", f"{batch_id} is a second batch {number}")
            elif promises.by_number[number].id not in {None, batch_id}:
                findings.blame("creating once", f"{batch_id} is batch {number}, promised as another")
            else:
                owners[batch_id] = number
        findings.counts["batches"] = len(listed)
        return owners

    def _results(self, batch_id: str) -> Answer:
        return call(self.port, "GET", f"/v1/messages/batches/{batch_id}/results")

    def _check_batch(self, findings: Findings, promise: Promise, batch: Any, calls: "Calls") -> None:
        """n-in-n-out, counts-add-up, ended-is-final, and each line of the batch by itself."""
        batch_id, results = batch["id"], self._results(batch["id"])
        if results.status != 200:
            findings.blame("n-in-n-out", f"{batch_id}: results answered {results.status}")
            return
        found = list(lines(results))
        ids = Counter(line["custom_id"] for line in found)
        if ids != Counter(promise.kinds.keys()):
            missing, extra = Counter(promise.kinds.keys()) - ids, ids - Counter(promise.kinds.keys())
            findings.blame("n-in-n-out", f"{batch_id}: {len(missing)} missing, {len(extra)} extra or doubled results")
        outcomes = Counter(line["result"]["type"] for line in found)
        counts = batch["request_counts"]
        if counts["processing"] or any(counts[name] != outcomes[name] for name in OUTCOMES):
            findings.blame("counts-add-up", f"{batch_id} says {counts}, its lines say {dict(outcomes)}")
        if promise.ended is not None and (promise.ended["counts"], promise.ended["digest"]) != (
            counts,
            hashlib.sha256(results.body).hexdigest(),
        ):
            findings.blame("ended-is-final", f"{batch_id} changed after it had ended")
        findings.counts["results"] += len(found)
        for line in found:
            self._check_line(findings, promise, line, calls)
        self._check_usage(findings, batch_id, found)

    def _check_line(self, findings: Findings, promise: Promise, line: Any, calls: "Calls") -> None:
        """one-winner and one-failure-is-one: a line is its own request's, and ends as that request must."""
        custom_id, result = line["custom_id"], line["result"]
        kind, outcome = promise.kinds.get(custom_id, "plain"), result["type"]
        findings.counts[outcome] += 1
        if outcome == "succeeded":
            message = result["message"]
            echo = ECHO.match(message["content"][0]["text"])
            if echo is None or echo[1] != custom_id:
                findings.blame("one-winner", f"{custom_id} has the text {message['content'][0]['text']!r}")
                return
            serial = int(echo[2])
            if calls.marks.get(serial) != custom_id:
                findings.blame("one-winner", f"{custom_id} has the reply of call {serial}, which was not its own")
            if any(message["usage"].get(name) != value for name, value in usage_of(serial).items()):
                findings.blame("billed-iff-succeeded", f"{custom_id} has the usage of another call")
        if outcome in ENDS[kind] or (outcome == "canceled" and promise.canceled):
            return
        if outcome == "errored" and "ended the process" in result["error"]["error"]["message"]:
            findings.counts["condemned"] += 1  # its worker died under it once too often: the poison rule
            return
        if outcome == "expired" and self.may_expire:
            return
        findings.blame("one-failure-is-one", f"{custom_id} ({kind}) is {outcome}: {json.dumps(result)[:200]}")

    def _check_usage(self, findings: Findings, batch_id: str, found: list[Any]) -> None:
        """billed-iff-succeeded: the batch's row has the usage of its succeeded lines, and of nothing else."""
        billed = [line["result"]["message"]["usage"] for line in found if line["result"]["type"] == "succeeded"]
        sums = tuple(sum(usage.get(name) or 0 for usage in billed) for name in USAGE)
        with closing(database(self.data)) as rows:
            row = rows.execute(f"SELECT {', '.join(USAGE)} FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if tuple(row) != sums:
            findings.blame("billed-iff-succeeded", f"{batch_id} is billed {tuple(row)}, its lines say {sums}")

    def _check_rows(self, findings: Findings) -> None:
        """Hold the database to itself and to the folder of objects."""
        with closing(database(self.data)) as rows:
            for (problem,) in rows.execute("PRAGMA integrity_check"):
                if problem != "ok":
                    findings.blame("accepted-is-durable", f"the database says {problem}")
            for invariant, what, question in QUESTIONS:
                for row in rows.execute(question).fetchall():
                    findings.blame(invariant, f"{what}: {tuple(row)}")
            objects = self.data / "objects"
            for key, length in rows.execute(
                "SELECT DISTINCT s.object_key, s.length FROM segment s JOIN block k ON k.segment = s.key"
                " JOIN batch b ON b.key = k.batch_key WHERE b.purge = 0"
            ):
                path = objects / key
                if not path.is_file() or path.stat().st_size != length:
                    findings.blame("n-in-n-out", f"segment {key} of {length} bytes is not in the folder of objects")
            findings.counts["segments"] = rows.execute("SELECT count(*) FROM segment").fetchone()[0]
            findings.counts["batches merged"] = rows.execute(
                "SELECT count(*) FROM batch WHERE generation > 0"
            ).fetchone()[0]
            findings.counts["parts"] = rows.execute("SELECT count(*) FROM part").fetchone()[0]


QUESTIONS = (
    ("n-in-n-out", "a batch without an end", "SELECT id, state, open_chunks FROM batch WHERE state <> 'ended'"),
    ("n-in-n-out", "a chunk that is not closed", "SELECT key, state FROM chunk WHERE state <> 'closed'"),
    (
        "counts-add-up",
        "an ended batch whose outcomes are not its total",
        (
            "SELECT id, total, succeeded, errored, canceled, expired FROM batch"
            " WHERE state = 'ended' AND succeeded + errored + canceled + expired <> total"
        ),
    ),
    (
        "one-winner",
        "a request resolved by two parts",
        (
            "SELECT a.chunk, a.bits, b.bits FROM part a JOIN part b ON a.chunk = b.chunk AND a.rowid < b.rowid"
            " WHERE a.bits & b.bits <> 0"
        ),
    ),
    (
        "one-winner",
        "a chunk whose bitmap is not the union of its parts",
        (
            "SELECT c.key, c.resolved, coalesce(sum(p.bits), 0) FROM chunk c LEFT JOIN part p ON p.chunk = c.key"
            " JOIN batch b ON b.key = c.batch_key WHERE b.purge = 0 GROUP BY c.key HAVING c.resolved <> coalesce(sum(p.bits), 0)"
        ),
    ),
    (
        "n-in-n-out",
        "an ended batch whose blocks and closings are not its total",
        (
            "SELECT b.id, b.total, b.generation FROM batch b WHERE b.state = 'ended' AND b.purge = 0"
            " AND NOT EXISTS (SELECT 1 FROM block k WHERE k.batch_key = b.key AND k.refused)"
            " AND b.total <> (SELECT coalesce(sum(k.lines), 0) FROM block k WHERE k.batch_key = b.key)"
            " + (SELECT sum(c.size - c.succeeded - c.errored) FROM chunk c WHERE c.batch_key = b.key)"
        ),
    ),
    (
        "ended-is-final",
        "a block of a segment whose object is doomed",
        "SELECT s.object_key FROM block k JOIN segment s ON s.key = k.segment WHERE s.gone OR s.emptied_us IS NOT NULL",
    ),
    (
        "one-winner",
        "a part of an attempt that never was",
        "SELECT p.chunk, p.attempt, c.attempt FROM part p JOIN chunk c ON c.key = p.chunk WHERE p.attempt > c.attempt",
    ),
    (
        "billed-iff-succeeded",
        "a batch whose usage is not the sum of its chunks'",
        (
            "SELECT b.id FROM batch b JOIN chunk c ON c.batch_key = b.key GROUP BY b.key"
            " HAVING sum(c.input_tokens) <> b.input_tokens OR sum(c.output_tokens) <> b.output_tokens"
        ),
    ),
)


def database(data: Path) -> sqlite3.Connection:
    """Return a connection that reads only."""
    return sqlite3.connect(f"file:{data / 'lowtide.db'}?mode=ro", uri=True, timeout=30)


def lines(results: Answer) -> Iterator[Any]:
    """Yield the lines of results; each must end with a line feed."""
    if results.status == 200 and not results.body.endswith(b"\n"):
        raise AssertionError("results do not end with a line feed")
    if results.status == 200:
        yield from map(json.loads, results.body[:-1].split(b"\n"))


@dataclass
class Calls:
    """What reached the upstream."""

    marks: dict[int, str] = field(default_factory=dict)
    per_mark: Counter[str] = field(default_factory=Counter)
    repeated: int = 0


def logged_calls(path: Path) -> Calls:
    """Return the calls of the upstream's log. A call after one that was answered 529 is a retry, not a repeat."""
    calls = Calls()
    refused: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        calls.marks[entry["serial"]] = entry["mark"]
        calls.per_mark[entry["mark"]] += 1
        refused[entry["mark"]] += entry["status"] == 529
    calls.repeated = sum(count - 1 - min(refused[mark], count - 1) for mark, count in calls.per_mark.items())
    return calls


def main() -> int:
    """Audit once, print what was found, and return 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    for name in ("--data", "--journal", "--calls"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    findings = Audit(given.port, given.data, given.journal, given.calls).run()
    print(json.dumps({"violations": findings.violations, "counts": findings.counts}, indent=2))
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
