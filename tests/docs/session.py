"""A reader who follows a page: a directory, servers that are left running, and the addresses that stand for the page's.

Servers listen on ports that the system chooses; from then on each address that the page writes means the real one.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from docs.manual import Block, Order
from support.serving import until
from support.tiny_gguf import write_model

BIN = Path(sys.executable).parent
QUICK = {
    "LOWTIDE_WORKER__LEASE_S": "2",
    "LOWTIDE_WORKER__COMMIT_INTERVAL_S": "0.1",
    "LOWTIDE_WORKER__IDLE_POLL_S": "0.1",
    "LOWTIDE_WORKER__BACKOFF_S": "0.05",
}
ADDRESS = re.compile(r"\b(127\.0\.0\.1|localhost):(\d+)")
URL = re.compile(r"http://127\.0\.0\.1:(\d+)")
PORT_FLAG = re.compile(r"\s--port[ =](\d+)")
DEFAULT_PORTS = {"serve": "8787", "simulate": "8788"}
KINDS = {*DEFAULT_PORTS, "worker"}
STEP_S = 60


class Session:
    """Does what a page says, in `directory`; `close` ends every server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said = ""
        self._ports: dict[str, str] = {}
        self._servers: list[subprocess.Popen[bytes]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOWTIDE_", "ANTHROPIC_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)  # dozens of commands would each compile what they import
        self._environ = kept | QUICK | {"PATH": f"{BIN}:{kept['PATH']}", "HOME": str(directory), "COLUMNS": "120"}

    def follow(self, piece: Block | Order) -> None:
        """Do what a piece of the page says."""
        match piece:
            case Order(("model", port)):
                self._serve("lowtide simulate --speed 0", port)
            case Order(("gguf", name)):
                write_model(self.directory / name)
            case Order(("env", setting)):
                name, _, value = setting.partition("=")
                self._environ[name] = value
            case Block(file=str(name)):
                (self.directory / name).write_text(self._here(piece.text), encoding="utf-8")
            case Block("sh", ("serve", *_)):
                for line in filter(None, piece.text.splitlines()):
                    self._serve(line.partition(" #")[0], None)
            case Block("sh", ("run", *_)):
                self._run(["bash", "-e", "-o", "pipefail", "-c", self._here(piece.text)], piece.status)
            case Block("python", ("run", *_)):
                self._run([sys.executable, "-c", self._here(piece.text)], piece.status)
            case Block("text", ("said", *_)):
                for line in filter(None, piece.text.splitlines()):
                    pattern = ".*".join(re.escape(part.strip()) for part in self._here(line).split("…"))
                    spaced = re.sub(r"(\\ )+", r"\\s+", pattern)
                    assert re.search(spaced, self.said), f"{line!r} is not in:\n{self.said}"
            case _:
                pass

    def close(self) -> None:
        """End the servers, the last one first."""
        for server in reversed(self._servers):
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=STEP_S)

    def _here(self, text: str) -> str:
        """Return a text with the addresses of this session's servers in the place of the page's."""
        return ADDRESS.sub(lambda found: f"{found[1]}:{self._ports.get(found[2], found[2])}", text)

    def _serve(self, command: str, port: str | None) -> None:
        """Start a server, and let the port that the page means stand for its own."""
        flag = PORT_FLAG.search(command)
        kind = next(word for word in shlex.split(command) if word in KINDS)
        if kind != "worker":
            command = f"{PORT_FLAG.sub('', command)} --port 0"
        number = len(self._servers)
        out, log = self.directory / f".server-{number}.out", self.directory / f".server-{number}.log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            server = subprocess.Popen(
                ["bash", "-c", self._here(command)],
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._servers.append(server)
        found = until(lambda: out.read_text() or (server.poll() is not None and "ended"))
        assert found != "ended", log.read_text()
        if kind == "worker":
            return
        found = URL.search(found)
        assert found
        self._ports[port or (flag[1] if flag else DEFAULT_PORTS[kind])] = found[1]
        if kind == "serve":
            self._environ["LOWTIDE_URL"] = f"http://127.0.0.1:{found[1]}"

    def _run(self, command: list[str], status: int) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_S,
            check=False,
        )
        self.said = done.stdout.decode()
        assert done.returncode == status, f"status {done.returncode} of:\n{command[-1]}\n{self.said}"
