"""`lowtide run` as a person starts it, against a model server that the test holds back, lets go or makes refuse."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.serving import Upstream

QUICK = {
    "LOWTIDE_WORKER__LEASE_S": "2",
    "LOWTIDE_WORKER__COMMIT_INTERVAL_S": "0.1",
    "LOWTIDE_WORKER__IDLE_POLL_S": "0.1",
    "LOWTIDE_ENGINE__THREADS_MAX": "1",
}


class Model(Upstream):
    """Answers a call once it has a pass; a prompt with `refuse` gets a 400 while `refusing` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing = True
        self.prompts: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._passes = threading.Semaphore(0)
        answer = self.RequestHandlerClass
        model = self

        class Answer(answer):
            def do_POST(self) -> None:  # noqa: N802 - the server calls it so
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][0]["content"]
                model.bodies.append(body)
                model.prompts[prompt] += 1
                model.calls += 1
                while not model.let_go.is_set() and not model._passes.acquire(timeout=0.05):
                    pass
                if model.refusing and "refuse" in prompt:
                    self.refuse()
                else:
                    self.reply(self.message)

            def refuse(self) -> None:
                error = {"type": "error", "error": {"type": "invalid_request_error", "message": "No such thing"}}
                data = json.dumps(error).encode()
                self.send_response(400)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.RequestHandlerClass = Answer

    def let_pass(self, calls: int) -> None:
        """Let so many calls be answered."""
        self._passes.release(calls)

    @property
    def repeated(self) -> int:
        """How many calls were made again."""
        return sum(count - 1 for count in self.prompts.values())


class Run:
    """One `lowtide run` process."""

    def __init__(self, directory: Path, *arguments: str, given: bytes | None = None, **variables: str) -> None:
        name = f"run-{len(list(directory.glob('run-*.out')))}"
        self.errors = directory / f"{name}.err"
        self.told = directory / f"{name}.out"
        (directory / "stdin").write_bytes(given or b"")
        with (
            (directory / "stdin").open("rb") as stdin,
            self.told.open("wb") as out,
            self.errors.open("wb") as errors,
        ):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lowtide", "run", *arguments],
                cwd=directory,
                stdin=stdin,
                stdout=out,
                stderr=errors,
                env=os.environ | QUICK | variables,
            )

    @property
    def said(self) -> str:
        return self.errors.read_text() + self.told.read_text()

    def status(self) -> int:
        """Return the exit status; -9 for a process that was killed."""
        return self.process.wait()

    def interrupt(self) -> int:
        """Press Ctrl-C and return the status."""
        self.process.send_signal(signal.SIGINT)
        return self.status()

    def kill(self) -> None:
        """Kill the process that was started, not its children."""
        self.process.kill()
        self.process.wait()

    def kill_all(self, state: Path) -> None:
        """Kill the process and every child that it ever started, as a power cut would."""
        self.kill()
        for line in (state / "run.log").read_text(encoding="utf-8").splitlines():
            if '"child.started"' in line:
                with suppress(ProcessLookupError):
                    os.kill(json.loads(line)["pid"], signal.SIGKILL)


Start = Callable[..., Run]


def write_prompts(path: Path, prompts: list[str]) -> None:
    """Write one request a line, named by its place."""
    lines = [
        json.dumps({"custom_id": f"p{place}", "params": {"messages": [{"role": "user", "content": prompt}]}})
        for place, prompt in enumerate(prompts)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def results(path: Path) -> list[tuple[str, str]]:
    """Return each line's custom_id and outcome, in the order of the file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(line["custom_id"], line["result"]["type"]) for line in lines]


def length(path: Path) -> int:
    """Return how many lines a file has; none if it does not exist."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
