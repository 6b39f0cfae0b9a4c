"""A real `lowtide serve`, and a model server that answers when the test lets it."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

TRIES, PAUSE_S = 1200, 0.05
HEADERS = {"x-api-key": "any", "anthropic-version": "2023-06-01", "content-type": "application/json"}


def until(found: Callable[[], Any]) -> Any:
    """Return the first true value of `found`, asked a bounded number of times."""
    for _ in range(TRIES):
        value = found()
        if value:
            return value
        time.sleep(PAUSE_S)
    raise AssertionError("it never came about")


def gone(pid: int) -> bool:
    """Tell whether a process is dead, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@contextmanager
def in_thread(server: ThreadingHTTPServer, let_go: threading.Event) -> Iterator[None]:
    """Serve in a thread; on leaving, let go of the calls that are held, and end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Upstream(ThreadingHTTPServer):
    """Answers every message once `let_go` is set, and counts the calls that arrived."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.let_go = threading.Event()
        self.calls = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream
    message: ClassVar[dict[str, Any]] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.calls += 1
        self.server.let_go.wait()
        self.reply(self.message)

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "m", "type": "model"}], "has_more": False, "first_id": "m", "last_id": "m"})

    def reply(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Served:
    """A running server: its URL, its children by kind, and its logs."""

    def __init__(self, data: Path, *flags: str, **variables: str) -> None:
        self.log = data.with_suffix(".log")
        # Pipes rather than files would fill up, or break, when a test kills what reads them.
        self.out = data.with_suffix(".out")
        command = [sys.executable, "-m", "lowtide", "serve", "--port", "0", "--data", str(data), *flags]
        self.seen = len(self.lines())
        with self.log.open("ab") as log, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | variables
            )
        first = until(lambda: self.out.read_text() or (self.process.poll() is not None and "ended"))
        assert first.startswith("Lowtide "), self.log.read_text()
        self.url = urlsplit(first.split()[4])

    def lines(self) -> list[dict[str, Any]]:
        """Return what was logged."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def pids(self, kind: str) -> list[int]:
        """Return the processes of this kind that were ever started by this server, oldest first."""
        started = [line for line in self.lines()[self.seen :] if line["event"] == "child.started"]
        return [line["pid"] for line in started if line["kind"] == kind]

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Make one call; a connection that cannot be made is an error, and so is one that breaks."""
        connection = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        """Tell whether the server is ready; a connection waits in the backlog until there is someone to answer."""
        return self.call("GET", "/readyz")[0] == 200

    def create(self, requests: int = 1) -> str:
        """Create a batch and return its id."""
        params = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "Well?"}]}
        items = [{"custom_id": f"r{index}", "params": params} for index in range(requests)]
        status, body = self.call("POST", "/v1/messages/batches", {"requests": items})
        assert status == 200, body
        return str(json.loads(body)["id"])

    def ended(self, batch: str) -> dict[str, int] | None:
        """Return the counts of a batch that has ended."""
        found = json.loads(self.call("GET", f"/v1/messages/batches/{batch}")[1])
        return found["request_counts"] if found["processing_status"] == "ended" else None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the supervisor and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait()


Serve = Callable[..., Served]
"""What the fixture `serve` is."""
