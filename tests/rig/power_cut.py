"""Power cuts: nothing that was acknowledged is missing or damaged when only synced writes survive (accepted-is-durable).

`python -m tests.rig.power_cut --cuts 30 --seed 1`. A server works under strace while a client makes batches and reads
results. For each cut, at the moment of an acknowledgement, the data directory is built anew from what was synced by
then, a server is started on it, and the auditor holds it to what the client had been promised by that moment. Half the
cuts drop everything unsynced, half keep random sectors of it. Then the method is put to the proof: the same cuts with
the syncs of one kind of file forgotten, as if the code had not made them, must be found damaged.
"""

import argparse
import contextlib
import json
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig import trace
from tests.rig.api import NoAnswer, all_batches
from tests.rig.auditor import Audit, Findings
from tests.rig.client import Client
from tests.rig.disk import Disk
from tests.rig.journal import Journal
from tests.rig.run import commit
from tests.rig.server import Server

PLANTED = {
    "the objects' content": r"/(objects|spool)/.*[^/]$",
    "the folders of objects": r"/objects(/.*)?$",
    "the database's log": r"/lowtide\.db-wal$",
}
"""Kinds of syncs that a careless store would leave out. Each must be found out."""

END_S = 60.0
BACK_S = 40.0
"""What a server has to come back, on a machine that does other things too."""


@dataclass(frozen=True)
class Cut:
    """One power cut: when, with which unsynced sectors kept, and with which syncs forgotten."""

    at: float
    seed: int
    some_survives: bool
    forget: str | None = None


@dataclass
class Recording:
    """A traced run: its folder, its calls in order, and when something was acknowledged."""

    server: Server
    steps: list[trace.Step]
    acknowledged: list[float] = field(default_factory=list)


def record(folder: Path, seed: int, batches: int) -> Recording:
    """Let a server work under strace until `batches` were made and have ended, then kill it."""
    server = Server(folder, seed=seed, delay_s=(0.01, 0.05))
    logs = folder / "strace"
    logs.mkdir(parents=True)
    server.data.mkdir()
    server.prefix = trace.command(logs)
    server.start_upstream()
    try:
        server.wait_ready()
        client = Client(server.port, Journal(server.journal), seed, sizes=(1, 60), cancel_share=0.1)
        follower = threading.Thread(target=client.follow)
        follower.start()
        for number in range(1, batches + 1):
            client.make_one(number)
        ended = client.wait_for_all(END_S)
        client.give_up.set()
        follower.join()
        if not ended or client.complaints:
            raise RuntimeError(f"the traced run went wrong: {client.complaints}; see {server.log}")
    finally:
        server.kill()
    events = [json.loads(line) for line in server.journal.read_text(encoding="utf-8").splitlines()]
    acknowledged = [event["at"] for event in events if event["event"] in {"accepted", "ended"}]
    return Recording(server, trace.steps(trace.calls(logs, str(server.data))), acknowledged)


def rebuilt(recording: Recording, cuts: Sequence[Cut]) -> Iterator[tuple[Cut, Path]]:
    """Yield for each cut (of one kind, in order of time) the folder that holds what it left as `data`."""
    disk = Disk(str(recording.server.data))
    forget = cuts[0].forget
    replay = trace.Replay(disk, re.compile(forget) if forget else None)
    left = iter(recording.steps)
    step = next(left, None)
    for number, cut in enumerate(cuts):
        while step is not None and step.at <= cut.at:
            replay.do(step)
            step = next(left, None)
        folder = recording.server.folder / f"cut-{number}"
        disk.rebuild(folder / "data", random.Random(cut.seed) if cut.some_survives else None)
        yield cut, folder
        shutil.rmtree(folder)


def audit(recording: Recording, cut: Cut, folder: Path) -> Findings:
    """Start a server on what a cut left, wait until all of it has ended, and hold it to its promises."""
    before = recording.server
    server = Server(folder, seed=before.seed, upstream_port=before.upstream_port)
    try:
        server.wait_ready(timeout_s=BACK_S)
        deadline = time.monotonic() + END_S
        while any(batch["processing_status"] != "ended" for batch in all_batches(server.port)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return Audit(server.port, server.data, before.journal, before.calls, until=cut.at).run()
    except (TimeoutError, NoAnswer) as error:
        findings = Findings()
        said = server.log.read_text(encoding="utf-8", errors="replace")[-1500:]
        findings.blame("accepted-is-durable", f"the server did not come back: {error}\n{said}")
        return findings
    finally:
        server.kill()


def choose_cuts(recording: Recording, count: int, seed: int, forget: str | None = None) -> list[Cut]:
    """Return cuts in order of time: at acknowledgements, one of five at any moment between."""
    chance = random.Random(f"{seed}{forget}")
    first, last = min(recording.acknowledged), max(recording.acknowledged)
    moments = sorted(
        chance.choice(recording.acknowledged) if number % 5 else chance.uniform(first, last) for number in range(count)
    )
    return [
        Cut(at, chance.randrange(1 << 32), some_survives=number % 2 == 1 and forget is None, forget=forget)
        for number, at in enumerate(moments)
    ]


def run(folder: Path, seed: int, batches: int, cuts: int, planted_cuts: int) -> tuple[list[str], str]:
    """Return the violations, and the report."""
    recording = record(folder, seed, batches)
    try:
        violations, results = [], 0
        for cut, left in rebuilt(recording, choose_cuts(recording, cuts, seed)):
            findings = audit(recording, cut, left)
            results += findings.counts["results"]
            violations += [f"cut at {cut.at} ({cut.seed}): {text}" for text in findings.violations]
        words = [
            f"power cuts at {commit()}, seed {seed}: {len(recording.steps)} calls on files, {batches} batches",
            (
                f"  violations {len(violations)} of {cuts} cuts, {results} results audited"
                f" (bound at 95 %: {3 / max(1, cuts):.3f} when 0)"
            ),
            *(f"    {violation}" for violation in violations[:50]),
        ]
        for kind, forget in PLANTED.items() if planted_cuts else ():
            found = sum(
                bool(audit(recording, cut, left).violations)
                for cut, left in rebuilt(recording, choose_cuts(recording, planted_cuts, seed, forget))
            )
            words.append(f"  planted: without the syncs of {kind}, {found} of {planted_cuts} cuts are found damaged")
            if not found:
                violations.append(f"the method does not see that {kind} is not synced")
        return violations, "\n".join(words)
    finally:
        recording.server.close()


def main() -> int:
    """Run once and return 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--planted-cuts", type=int, default=4)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="a folder to work in, kept afterwards")
    given = parser.parse_args()
    if shutil.which("strace") is None:
        print("the power cuts need strace; on Debian: apt-get install strace", file=sys.stderr)
        return 2
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-cut-")))
        violations, text = run(folder, given.seed, given.batches, given.cuts, given.planted_cuts)
    print(text, flush=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
