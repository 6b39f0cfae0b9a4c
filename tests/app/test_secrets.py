"""Canaries in keys, prompts and replies: after a run of real processes, good and bad, none is where it must not be.

Prompts and replies stand in the objects and in the answers that they belong to, and nowhere else; the text of a key
stands nowhere at all.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lowtide.domain.keys import new_key
from lowtide.ports.clock import SystemClock
from support.access import holder
from support.lab import store_in
from support.serving import Served, gone, in_thread, until

PROMPT, REPLY, SERVER_KEY, QUERY = (
    "canary-prompt-6f1d",
    "canary-reply-93ab",
    "canary-upstream-key-51ce",
    "canary-query-77",
)
BATCHES = "/v1/messages/batches"


class Model(ThreadingHTTPServer):
    """A model server that answers by the custom word in the prompt, and quotes both canaries whatever goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.held = threading.Event()
        self.holding = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
        message |= {"content": [{"type": "text", "text": REPLY}], "stop_reason": "end_turn", "stop_sequence": None}
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": f"{REPLY}: no, {PROMPT}"}}
        if "hold" in body:
            self.server.holding.set()
            self.server.held.wait()
        if "refuse" in body:
            self._reply(400, json.dumps(error))
        elif "fail" in body:
            self._reply(500, json.dumps(error))
        elif "garble" in body:
            self._reply(200, f"{REPLY} {PROMPT} is no JSON")
        elif "break" in body:
            self.send_response(200)
            self.send_header("content-length", "10000")
            self.end_headers()
            self.wfile.write(REPLY.encode())
            self.close_connection = True
        else:
            self._reply(200, json.dumps(message | {"usage": {"input_tokens": 1, "output_tokens": 1}}))

    def do_GET(self) -> None:
        self._reply(200, json.dumps({"data": [{"id": "m", "type": "model"}]}))

    def _reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


class Caller:
    """A client with a key, that keeps what it was told in errors."""

    def __init__(self, served: Served, key: str) -> None:
        self.served = served
        self.key = key
        self.errors: list[bytes] = []

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        sent = {"x-api-key": self.key, "anthropic-version": "2023-06-01"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if body is None or isinstance(body, str) else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.served.url.port or 0, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, raw, sent)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 400:
            self.errors.append(answer + str(response.getheaders()).encode())
        return response.status, answer

    def run(self, *words: str) -> bytes:
        """Run a batch of a prompt for each word and return its results."""
        requests = [{"custom_id": word, "params": params(word)} for word in words]
        status, body = self.call("POST", BATCHES, {"requests": requests})
        assert status == 200, body
        batch = json.loads(body)["id"]
        until(lambda: json.loads(self.call("GET", f"{BATCHES}/{batch}")[1])["processing_status"] == "ended")
        return self.call("GET", f"{BATCHES}/{batch}/results?{QUERY}")[1]


def params(word: str) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": f"{PROMPT} {word}"}]}


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    with in_thread(server, server.held):
        yield server


def make_key(data: Path) -> str:
    """Return the text of a key made in a data directory."""

    async def make() -> str:
        async with store_in(data, SystemClock()) as store:
            return (await holder(store)).text

    data.mkdir()
    return asyncio.run(make())


@pytest.fixture
def caller(tmp_path: Path, model: Model) -> Iterator[Caller]:
    """A caller of a server that logs all that it ever would."""
    keyfile, config = tmp_path / "upstream.key", tmp_path / "lowtide.toml"
    keyfile.write_text(SERVER_KEY)
    config.write_text(f'[log]\nlevel = "debug"\n[[upstreams]]\nurl = "{model.url}"\nkey_file = "{keyfile}"\n')
    key = make_key(tmp_path / "data")
    quick = {
        "LOWTIDE_WORKER__BACKOFF_S": "0.01",
        "LOWTIDE_WORKER__TRIES_MAX": "2",
        "LOWTIDE_WORKER__SUSPECT_WAIT_S": "0",
    }
    served = Served(tmp_path / "data", "--config", str(config), **quick)
    yield Caller(served, key)
    model.held.set()
    served.process.kill()
    served.process.wait()
    for pid in [*served.pids("api"), *served.pids("worker")]:
        until(lambda pid=pid: gone(pid))


def bad_calls(caller: Caller) -> None:
    """Make calls that are refused, each with canaries in it."""
    good = json.dumps({"requests": [{"custom_id": "a", "params": params("x")}]})
    unknown = json.dumps({"requests": [{"custom_id": "a", "params": PROMPT}]})
    for body in (good[:-9], f"{PROMPT} is no JSON", unknown, good + good):
        assert caller.call("POST", f"{BATCHES}?{QUERY}", body)[0] == 400
    assert caller.call("POST", BATCHES, good, content_encoding=PROMPT)[0] == 400
    assert caller.call("GET", f"{BATCHES}?limit=x&{QUERY}={caller.key}")[0] == 400
    assert caller.call("POST", "/v1/messages", f'{{"model":1,"x":"{PROMPT}"}}')[0] == 400
    for key in (caller.key[:-1], new_key().reveal(), PROMPT):
        assert caller.call("GET", f"{BATCHES}?{QUERY}", x_api_key=key)[0] == 401
        assert caller.call("GET", BATCHES, x_api_key="", authorization=f"Bearer {key}")[0] == 401


def half_a_create(caller: Caller) -> socket.socket:
    """Begin a create whose body never comes to its end."""
    connection = socket.create_connection(("127.0.0.1", caller.served.url.port or 0))
    body = json.dumps({"requests": [{"custom_id": str(n), "params": params("x" * 1000)} for n in range(2000)]})
    head = f"POST {BATCHES} HTTP/1.1\r\nhost: x\r\nx-api-key: {caller.key}\r\nanthropic-version: 2023-06-01\r\n"
    connection.sendall(f"{head}content-length: {2 * len(body)}\r\n\r\n{body}".encode())
    return connection


def of_processes(pids: list[int]) -> bytes:
    """Return what anyone on the machine could see of living processes: their arguments and their environment."""
    assert pids
    return b"".join(Path(f"/proc/{pid}/{file}").read_bytes() for pid in pids for file in ("cmdline", "environ"))


def spooled(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (data / "spool").iterdir())


def found(canaries: tuple[str, ...], text: bytes) -> list[str]:
    return [canary for canary in canaries if canary.encode() in text]


def test_no_canary_is_where_it_must_not_be(caller: Caller, model: Model, tmp_path: Path) -> None:
    served, data = caller.served, tmp_path / "data"
    secrets = (caller.key, caller.key[3:30], SERVER_KEY)
    every = (*secrets, PROMPT, REPLY, QUERY)

    results = caller.run("good", "refuse", "fail", "garble", "break")
    assert found(every, results) == [PROMPT, REPLY]
    bad_calls(caller)
    assert found(every, b"".join(caller.errors)) == []
    for word in ("good", "refuse", "fail", "garble"):
        status, answer = caller.call("POST", f"/v1/messages?{QUERY}", params(word))
        assert status in {200, 400, 500}
        assert found(secrets, answer) == []

    hold = {"requests": [{"custom_id": "hold", "params": params("hold")}]}
    assert caller.call("POST", BATCHES, hold)[0] == 200
    assert model.holding.wait(60)
    with half_a_create(caller):
        until(lambda: PROMPT.encode() in spooled(data))
        api, worker = served.pids("api")[-1], served.pids("worker")[-1]
        assert found(every, of_processes([served.process.pid, api, worker])) == []
        os.kill(api, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
    until(lambda: len(served.pids("api")) == len(served.pids("worker")) == 2)
    assert until(served.answers)
    assert spooled(data) == b""
    model.held.set()

    status, metrics = caller.call("GET", "/metrics")
    assert status == 200
    assert found(every, metrics) == []
    assert served.stop() == 0
    logs = served.log.read_bytes() + served.out.read_bytes()
    assert b"key.refused" in logs
    assert b"debug" in logs
    assert found(every, logs) == []
    rows = b"".join(path.read_bytes() for path in data.glob("lowtide.db*"))
    assert found(every, rows) == []
    assert found(secrets, b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())) == []
