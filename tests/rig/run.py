"""The crash rig: kills and pauses at random moments while a client works, then an audit of everything promised.

`python -m tests.rig.run --kills 200 --pauses 50 --seed 1`. One API and one worker run under `lowtide serve`, further
workers alone. Victims are the server as a whole, its API, its worker, the extra workers and the splitters of large
bodies, killed by SIGKILL or stopped for longer than a lease and then continued, so that a zombie tries to commit.
Statement: 0 violations; the run prints n, its seed, the bound 3/n, repeated upstream calls and times to recover.
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.api import NoAnswer, call
from tests.rig.auditor import Audit, Findings
from tests.rig.client import Client
from tests.rig.journal import Journal
from tests.rig.notice import wait_for_name
from tests.rig.server import ROOT, Server, age_s, choose, send
from tests.rig.watch import Watch, percentile

KILL_WEIGHTS = {"extra worker": 10, "worker": 4, "api": 2, "serve": 1, "splitter": 2}
PAUSE_WEIGHTS = {"extra worker": 6, "worker": 3, "api": 1}
GROWN_S, GROWN_SHARE = 2.0, 0.85
"""Most victims have lived so long that they have work in hand; the others are hit while they start."""
SHARP_SHARE, SHARP_WAIT_S = 0.5, 4.0
SETTLE_S = 90.0


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    kills: int
    pauses: int
    seed: int
    pace_s: float = 0.6
    makers: int = 3
    open_max: int = 12
    extra_workers: int = 3
    lease_s: float = 2.0
    only: str = ""
    """The one kind of victim, or nothing for all."""
    sizes: tuple[int, int] = (1, 120)
    batches: int = 6
    """At least so many batches are made, however short the run."""


@dataclass
class Chaos:
    """Does a plan to a server."""

    plan: Plan
    server: Server
    client: Client
    watch: Watch
    done: Counter[str] = field(default_factory=Counter)
    ready_s: list[float] = field(default_factory=list)
    _paused: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Kill and pause until the plan is done, starting again what dies."""
        chance = random.Random(self.plan.seed)
        moves = ["kill"] * self.plan.kills + ["pause"] * self.plan.pauses
        chance.shuffle(moves)
        for move in moves:
            while not self._move(move, chance):
                time.sleep(0.05)
            time.sleep(chance.expovariate(1 / self.plan.pace_s))
            self.server.keep()

    def _move(self, move: str, chance: random.Random) -> bool:
        least_s = GROWN_S if chance.random() < GROWN_SHARE else 0.0
        found = {
            kind: [pid for pid in pids if pid not in self._paused and (kind == "splitter" or age_s(pid) >= least_s)]
            for kind, pids in self.server.processes().items()
        }
        weights = KILL_WEIGHTS if move == "kill" else PAUSE_WEIGHTS
        victim = choose(chance, {self.plan.only: 1} if self.plan.only else weights, found)
        if victim is None:
            self.server.keep()
            return False
        kind, pid = victim
        if not (self._kill(kind, pid) if move == "kill" else self._pause(pid, chance)):
            return False
        self.done[f"{move}s"] += 1
        self.done[f"{move}s of {kind}"] += 1
        return True

    def _kill(self, kind: str, pid: int) -> bool:
        held = self.watch.before_kill(pid) if kind == "extra worker" else {}
        killed = send(pid, signal.SIGKILL)
        if killed and held:
            self.watch.after_kill(held)
        if killed and kind in {"serve", "api"}:
            threading.Thread(target=self._time_ready, daemon=True).start()
        return killed

    def _time_ready(self) -> None:
        """Note how long it takes until the API answers again; a further kill within that time counts into it."""
        begun = time.monotonic()
        while time.monotonic() - begun < SETTLE_S:
            self.server.keep()
            time.sleep(0.02)
            with contextlib.suppress(NoAnswer):
                if call(self.server.port, "GET", "/readyz", timeout_s=5).status == 200:
                    self.ready_s.append(time.monotonic() - begun)
                    return

    def _pause(self, pid: int, chance: random.Random) -> bool:
        """Stop a process for longer than a lease; it is continued beside everything else.

        Every second pause of a worker waits for the moment at which its next segment has a name and no rows.
        """
        session = self.watch.session_of(pid)
        if session is not None and chance.random() < SHARP_SHARE:
            name = wait_for_name(self.server.data / "objects/segments" / session, SHARP_WAIT_S)
            self.done["pauses right after a segment"] += name is not None
        if not send(pid, signal.SIGSTOP):
            return False
        self._paused.add(pid)
        timer = threading.Timer(self.plan.lease_s * chance.uniform(1.25, 2.5), self._continue, [pid])
        timer.daemon = True
        timer.start()
        return True

    def _continue(self, pid: int) -> None:
        send(pid, signal.SIGCONT)
        self._paused.discard(pid)

    def settle(self) -> bool:
        """Leave the server alone until everything accepted has ended; return whether it came to that."""
        while self._paused:
            time.sleep(0.05)
        deadline = time.monotonic() + SETTLE_S
        self.server.wait_ready()
        while self.client.open and time.monotonic() < deadline:
            self.server.keep()
            time.sleep(0.1)
        return not self.client.open


@dataclass(frozen=True)
class Report:
    """What a run came to."""

    plan: Plan
    findings: Findings
    chaos: Chaos
    wall_s: float

    @property
    def violations(self) -> list[str]:
        return self.findings.violations

    def text(self) -> str:
        """Return the report in words and figures."""
        done, made, counts = self.chaos.done, self.chaos.client.counts, self.findings.counts
        trials = done["kills"] + done["pauses"]
        repeated = counts["upstream calls repeated"]
        watch = self.chaos.watch
        victims = ", ".join(f"{count} {name}" for name, count in sorted(done.items()) if " " in name)
        return "\n".join(
            [
                f"crash rig at {commit()}, seed {self.plan.seed}, {self.wall_s:.0f} s",
                (
                    f"  {done['kills']} kills, {done['pauses']} pauses longer than the lease of {self.plan.lease_s} s"
                    f" ({victims})"
                ),
                (
                    f"  {counts['batches']} batches, {counts['results']} results: {counts['succeeded']} succeeded,"
                    f" {counts['errored']} errored ({counts['condemned']} by the poison rule), {counts['canceled']} canceled;"
                    f" {made['cancels']} cancels, {made['creates without an answer']} creates without an answer"
                ),
                (
                    f"  upstream calls {counts['upstream calls']}, repeated {repeated}"
                    f" ({100 * repeated / max(1, counts['results']):.2f} % of results)"
                ),
                f"  zombie writes refused: {refusals(self.chaos.server.log)}",
                f"  dead workers' chunks freed: {spread(watch.freed_s)}; taken again: {spread(watch.taken_s)}",
                f"  API ready again: {spread(self.chaos.ready_s)}",
                f"  violations {len(self.violations)} of {trials} trials (bound at 95 %: {3 / max(1, trials):.4f} when 0)",
                *(f"    {violation}" for violation in self.violations[:50]),
            ]
        )


def spread(times_s: list[float]) -> str:
    """Return the number, the median and the 99th percentile of times."""
    if not times_s:
        return "never"
    return f"n {len(times_s)}, median {percentile(times_s, 0.5):.2f} s, p99 {percentile(times_s, 0.99):.2f} s"


def commit() -> str:
    """Return the commit of the working tree, with a plus if files differ from it."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "no commit"


def refusals(log: Path) -> int:
    """Return how many parts of commits were refused, by the server's log."""
    refused = 0
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if '"refused"' in line:
            with contextlib.suppress(json.JSONDecodeError):
                refused += int(json.loads(line).get("refused") or 0)
    return refused


def run(plan: Plan, folder: Path) -> Report:
    """Do a plan in a folder and return what it came to."""
    begun = time.monotonic()
    server = Server(folder, extra_workers=plan.extra_workers, lease_s=plan.lease_s, seed=plan.seed)
    try:
        server.start_upstream()
        server.wait_ready()
        client = Client(server.port, Journal(server.journal), plan.seed, sizes=plan.sizes)
        chaos = Chaos(plan, server, client, Watch(server))
        threads = [threading.Thread(target=client.make_batches, args=(plan.open_max,)) for _ in range(plan.makers)]
        follower = threading.Thread(target=client.follow)
        for thread in [*threads, follower]:
            thread.start()
        try:
            chaos.run()
            client.wait_for_made(plan.batches, SETTLE_S)
        finally:
            client.stop.set()
        for thread in threads:
            thread.join(SETTLE_S)
        settled = chaos.settle()
        client.give_up.set()
        follower.join()
        chaos.watch.finish()
        findings = Audit(server.port, server.data, server.journal, server.calls).run()
        findings.violations += client.complaints
        if not settled:
            findings.blame("n-in-n-out", f"{len(client.open)} batches did not end within {SETTLE_S:.0f} s")
        return Report(plan, findings, chaos, time.monotonic() - begun)
    finally:
        server.close()


def main() -> int:
    """Run once and return 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pauses", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pace-s", type=float, default=Plan.pace_s)
    parser.add_argument("--only", default="", choices=["", *KILL_WEIGHTS], help="the one kind of victim")
    parser.add_argument("--keep", type=Path, help="a folder to work in, kept afterwards")
    given = parser.parse_args()
    plan = Plan(given.kills, given.pauses, given.seed, given.pace_s, only=given.only)
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-rig-")))
        report = run(plan, folder)
        print(report.text(), flush=True)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
