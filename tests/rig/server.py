"""The server under test, from outside: `lowtide serve`, extra `lowtide worker`s and the fake upstream, as processes.

It knows processes by what the kernel says of them (parent, command line), settings by their environment variables, and
nothing else. Whatever it starts, it ends.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.api import NoAnswer, call

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0
LOOK_S = 0.05
KINDS = {
    "-m lowtide serve": "serve",
    "api_process": "api",
    "worker_process": "worker",
    "-m lowtide worker": "extra worker",
}
"""What a process is, by a part of its command line."""


def free_port() -> int:
    """Return a port that was free a moment ago; a server that is started again needs the same one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def marked(mark: bytes) -> Iterator[int]:
    """Yield the processes whose environment holds `mark`: the server's own, and the orphans of earlier ones."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def command_of(pid: int) -> str:
    """Return the command line of a process, or nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def age_s(pid: int) -> float:
    """Return for how long a process has lived; 0 when it is gone."""
    try:
        started_ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Server:
    """One data directory and whatever runs on it. `more` are further environment variables of every process."""

    folder: Path
    workers: int = 1
    extra_workers: int = 0
    lease_s: float = 2.0
    seed: int = 0
    delay_s: tuple[float, float] = (0.02, 0.2)
    more: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    upstream_port: int = 0
    serve: subprocess.Popen[bytes] | None = None
    extra: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _upstream: subprocess.Popen[bytes] | None = None
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def calls(self) -> Path:
        return self.folder / "calls.jsonl"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def environment(self) -> dict[str, str]:
        """Return the environment of Lowtide's processes."""
        upstream = {"url": f"http://127.0.0.1:{self.upstream_port}", "in_flight_max": 32}
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOWTIDE_")},
            "LOWTIDE_DATA": str(self.data),
            "LOWTIDE_PORT": str(self.port),
            "LOWTIDE_WORKERS": str(max(1, self.workers)),
            "LOWTIDE_UPSTREAMS": json.dumps([upstream]),
            "LOWTIDE_WORKER__LEASE_S": str(self.lease_s),
            "LOWTIDE_WORKER__COMMIT_INTERVAL_S": "0.3",
            "LOWTIDE_WORKER__BACKOFF_S": "0.1",
            "LOWTIDE_WORKER__CIRCUIT_WAIT_MAX_S": "1",
            "LOWTIDE_WORKER__SUSPECT_WAIT_S": "1",
            "LOWTIDE_WORKER__GRACE_S": "2",
            "LOWTIDE_WORKER__IDLE_POLL_S": "0.25",
            "LOWTIDE_HTTP__GRACE_S": "1",
            "LOWTIDE_UPKEEP__REAP_S": "0.2",
            "LOWTIDE_UPKEEP__CLOSE_S": "0.2",
            "LOWTIDE_UPKEEP__EXPIRE_S": "0.5",
            "LOWTIDE_UPKEEP__EXPIRE_GRACE_S": "1",
            "LOWTIDE_UPKEEP__MERGE_S": "0.2",
            "LOWTIDE_UPKEEP__MERGE_BLOCKS_MIN": "2",
            "LOWTIDE_UPKEEP__PURGE_S": "0.5",
            "LOWTIDE_UPKEEP__SWEEP_S": "1",
            "LOWTIDE_LOG__FORMAT": "json",
            **self.more,
        }

    def start_upstream(self) -> None:
        """Start the fake model server; it lives as long as the rig."""
        self.folder.mkdir(parents=True, exist_ok=True)
        delays = [str(delay) for delay in self.delay_s]
        self._upstream = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.rig.upstream",
                "--log",
                self.calls,
                "--seed",
                str(self.seed),
                "--delay-s",
                *delays,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._upstream.stdout is not None
        with self._upstream.stdout as said:
            self.upstream_port = int(said.readline())

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "lowtide", *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_serve(self) -> None:
        """Start `lowtide serve`, whatever became of the one before."""
        self.serve = self._spawn("serve", *([] if self.workers else ["--no-worker"]))

    def start_extra(self) -> None:
        """Start the missing ones of the extra workers."""
        self.extra = [process for process in self.extra if process.poll() is None]
        while len(self.extra) < self.extra_workers:
            self.extra.append(self._spawn("worker"))

    def keep(self) -> None:
        """Start again what has died."""
        with self._keeping:
            if self.serve is None or self.serve.poll() is not None:
                self.start_serve()
            self.start_extra()

    def wait_ready(self, timeout_s: float = READY_S) -> float:
        """Wait until `/readyz` answers 200, starting again what dies; return how many seconds that took."""
        begun = time.monotonic()
        while time.monotonic() - begun < timeout_s:
            self.keep()
            with contextlib.suppress(NoAnswer):
                if call(self.port, "GET", "/readyz", timeout_s=2).status == 200:
                    return time.monotonic() - begun
            time.sleep(LOOK_S)
        raise TimeoutError(f"the server was not ready; see {self.log}")

    def processes(self) -> dict[str, list[int]]:
        """Return the process ids that live now, by what they are."""
        found: dict[str, list[int]] = {kind: [] for kind in (*KINDS.values(), "splitter")}
        for pid in marked(f"LOWTIDE_DATA={self.data}".encode()):
            command = command_of(pid)
            kind = next((kind for part, kind in KINDS.items() if part in command), "splitter")
            if command and not command.startswith("strace"):
                found[kind].append(pid)
        return found

    def stop(self) -> None:
        """End everything but the upstream, gracefully where that works."""
        for process in [*self.extra, *([self.serve] if self.serve else [])]:
            if process.poll() is None:
                process.terminate()
        for process in [*self.extra, *([self.serve] if self.serve else [])]:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.serve, self.extra = None, []

    def kill(self) -> None:
        """End everything but the upstream at once, as a power cut does."""
        victims = [pid for pids in self.processes().values() for pid in pids]
        for pid in victims:
            send(pid, signal.SIGKILL)
        for process in [*self.extra, *([self.serve] if self.serve else [])]:
            process.kill()
            process.wait()
        wait_gone(victims)
        self.serve, self.extra = None, []

    def close(self) -> None:
        """End everything."""
        self.kill()
        if self._upstream is not None:
            self._upstream.kill()
            self._upstream.wait()


def wait_gone(pids: Sequence[int], timeout_s: float = 20.0) -> None:
    """Wait until none of these processes is left."""
    deadline = time.monotonic() + timeout_s
    while any(command_of(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{[command_of(pid) for pid in pids]} did not end")
        time.sleep(LOOK_S)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start the upstream and the server, wait until it is ready, and end everything at the end."""
    try:
        server.start_upstream()
        server.wait_ready()
        yield server
    finally:
        server.close()


def choose(chance: random.Random, weights: dict[str, int], found: dict[str, list[int]]) -> tuple[str, int] | None:
    """Choose one living process by the weight of its kind."""
    kinds = [kind for kind in weights if found[kind]]
    if not kinds:
        return None
    kind = chance.choices(kinds, [weights[kind] for kind in kinds])[0]
    return kind, chance.choice(found[kind])
