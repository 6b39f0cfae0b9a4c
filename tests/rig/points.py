"""Every fault point with every action: a crash, an error or a hang right before and right after each commit point.

`python -m tests.rig.points` walks them all; `--sample 6` takes some, chosen by the seed. The points are asked of the
code itself, so that a new one is walked without anyone remembering it. One case: a server with that one fault armed
works through batches, one canceled, one deleted and purged, and an upload given up; then the auditor looks. A case whose
fault was never taken is a violation too.
"""

import argparse
import contextlib
import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.rig import access
from tests.rig.api import NoAnswer, call
from tests.rig.auditor import Audit, Findings
from tests.rig.client import Client, make_requests
from tests.rig.journal import Journal
from tests.rig.run import commit
from tests.rig.server import ROOT, Server, send

LEASE_S = 1.0
END_S = 60.0
TAKEN_S = 60.0
TWO_HOURS_US = 2 * 3600 * 1_000_000

ASK = """
import importlib, json, pkgutil
import lowtide
from lowtide import faults
for module in pkgutil.walk_packages(lowtide.__path__, "lowtide."):
    if "__main__" not in module.name and ".migrations." not in module.name:
        importlib.import_module(module.name)
print(json.dumps({"points": sorted(faults.registered()), "actions": faults.ACTIONS}))
"""


@dataclass(frozen=True)
class Case:
    """One fault: a point and what happens there, the nth time it is passed."""

    point: str
    action: str
    nth: int = 1

    @property
    def armed(self) -> str:
        return f"{self.point}={self.action}:{self.nth}"


def all_cases() -> list[Case]:
    """Return a case for every point that the code registers and every action."""
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=True)
    asked = json.loads(done.stdout)
    return [Case(point, action) for point in asked["points"] for action in asked["actions"]]


def sample(cases: list[Case], count: int, seed: int) -> list[Case]:
    """Return `count` of the cases, of as many different points as there are."""
    chance = random.Random(seed)
    shuffled = chance.sample(cases, len(cases))
    first = {case.point: case for case in shuffled}
    rest = [case for case in shuffled if case not in first.values()]
    return [*first.values(), *rest][:count]


@dataclass
class Walk:
    """One case on its way."""

    case: Case
    server: Server
    client: Client

    @property
    def taken(self) -> bool:
        path = self.server.folder / "taken"
        return path.exists() and f"{self.case.point}={self.case.action}" in path.read_text(encoding="utf-8")

    def usual(self) -> bool:
        """Make batches, cancel one, let the worker go in the middle, and wait for all; return whether they ended."""
        numbers = range(1, 4)
        makers = [threading.Thread(target=self.client.make_one, args=(number,)) for number in numbers]
        for maker in makers:
            maker.start()
        while any(maker.is_alive() for maker in makers):
            self.server.keep()
            time.sleep(0.05)
        if 2 in self.client.open:
            self.client.cancel(2, self.client.open[2])
        for worker in self.server.processes()["worker"]:
            send(worker, signal.SIGTERM)
        return self._wait(lambda: not self.client.open, END_S)

    def give_up_an_upload(self) -> None:
        """Send a create and go away before it is answered."""
        body, kinds = make_requests(99, 20, random.Random(99))
        self.client.journal.note("intent", 99, kinds=kinds)
        head = "POST /v1/messages/batches HTTP/1.1\r\nhost: x\r\nx-api-key: rig\r\nanthropic-version: 2023-06-01\r\n"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def late(self) -> bool:
        """Delete a batch and let the hour pass after which its objects go; return whether the fault was taken."""
        ended = self.client.made[1]
        if not self._wait(lambda: self._delete(ended), END_S):
            return False
        self.server.stop()
        with closing(sqlite3.connect(self.server.data / "lowtide.db", isolation_level=None)) as rows:
            rows.execute("UPDATE batch SET deleted_us = deleted_us - ? WHERE deleted_us IS NOT NULL", (TWO_HOURS_US,))
            rows.execute("UPDATE segment SET emptied_us = emptied_us - ? WHERE emptied_us > 0", (TWO_HOURS_US,))
        return self._wait(lambda: self.taken and not self._objects_of_deleted(), TAKEN_S)

    def _delete(self, batch_id: str) -> bool:
        self.client.journal.note("deleted", 1)
        try:
            return call(self.server.port, "DELETE", f"/v1/messages/batches/{batch_id}").status in {200, 404}
        except NoAnswer:
            return False

    def _objects_of_deleted(self) -> bool:
        with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(self.server.data / "lowtide.db")) as rows:
            keys = rows.execute("SELECT request_key FROM batch WHERE deleted_us IS NOT NULL").fetchall()
            return any((self.server.data / "objects" / key).exists() for (key,) in keys)
        return True

    def _wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.server.keep()
            if until():
                return True
            time.sleep(0.05)
        return False


def walk(case: Case, folder: Path, seed: int) -> Findings:
    """Do one case in a folder and return what it came to."""
    more = {
        "LOWTIDE_FAULTS": case.armed,
        "LOWTIDE_FAULTS_TAKEN": str(folder / "taken"),
        "LOWTIDE_FAULT_HANG_S": str(3 * LEASE_S),
    }
    if case.point == access.POINT:
        return access.walk(case.armed, more, folder)
    server = Server(folder, lease_s=LEASE_S, seed=seed, delay_s=(0.1, 0.4), more=more)
    findings = Findings()
    try:
        server.start_upstream()
        server.wait_ready()
        client = Client(server.port, Journal(server.journal), seed, sizes=(30, 80), cancel_share=0, doubt_share=1)
        doing = Walk(case, server, client)
        follower = threading.Thread(target=client.follow)
        follower.start()
        try:
            doing.give_up_an_upload()
            if not doing.usual():
                findings.blame("n-in-n-out", f"{len(client.open)} batches did not end")
            elif not doing.taken and not doing.late():
                findings.blame("the rig", "the fault was never taken" if not doing.taken else "dead objects stay")
        finally:
            client.give_up.set()
            follower.join()
        server.wait_ready()
        audited = Audit(server.port, server.data, server.journal, server.calls).run()
        findings.violations += audited.violations + client.complaints
        findings.counts.update(audited.counts)
    except (TimeoutError, NoAnswer) as error:
        findings.blame("n-in-n-out", f"the server did not come back: {error}")
    finally:
        server.close()
    return findings


def main() -> int:
    """Walk the cases and return 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="so many cases instead of all")
    parser.add_argument("--only", default="", help="only the points that begin so")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--keep", type=Path, help="a folder to work in, kept afterwards")
    given = parser.parse_args()
    cases = [case for case in all_cases() if case.point.startswith(given.only)]
    if given.sample is not None:
        cases = sample(cases, given.sample, given.seed)
    violations = 0
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-points-")))
        pool = stack.enter_context(ThreadPoolExecutor(given.jobs))
        walks = [pool.submit(walk, case, folder / f"{case.point}-{case.action}", given.seed) for case in cases]
        for number, (case, walked) in enumerate(zip(cases, walks, strict=True)):
            findings = walked.result()
            violations += len(findings.violations)
            said = "; ".join(findings.violations) or "holds"
            print(f"  {number + 1}/{len(cases)} {case.point} {case.action}: {said}", flush=True)
    print(
        f"fault points at {commit()}, seed {given.seed}: violations {violations} in {len(cases)} cases"
        f" (bound at 95 %: {3 / max(1, len(cases)):.3f} when 0)",
        flush=True,
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
