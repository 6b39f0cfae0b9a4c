"""A server of the API that is not ours: no route of `/lowtide`, no word of an idempotency key, faults when a test says so."""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

BATCHES = "/v1/messages/batches"
ETAG = '"results-1"'
Step = Callable[["Handler"], bool]
"""What happens to the next call instead; False lets it pass."""


@dataclass(frozen=True)
class Seen:
    """A call as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def batch(number: int, *, ended: bool, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return a batch on the wire, newer with a higher number."""
    return {
        "id": f"msgbatch_{number:04}",
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0, **counts},
        "ended_at": "2026-08-19T14:59:30.044811+00:00" if ended else None,
        "created_at": f"2026-08-19T14:49:{number % 60:02}.044811+00:00",
        "expires_at": "2026-08-20T14:49:30.044811+00:00",
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": "https://elsewhere.invalid/results" if ended else None,
    }


def result_lines(succeeded: int, errored: int = 0) -> bytes:
    """Return so many results, those that succeeded first."""
    usage = {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": None}
    message = {"id": "msg_1", "type": "message", "content": [{"type": "text", "text": "ok " * 40}], "usage": usage}
    error = {
        "type": "error",
        "error": {"details": None, "type": "invalid_request_error", "message": "messages: Field required"},
        "request_id": None,
    }
    results: list[dict[str, Any]] = [{"type": "succeeded", "message": message} for _ in range(succeeded)]
    results += [{"type": "errored", "error": error} for _ in range(errored)]
    return b"".join(
        json.dumps({"custom_id": f"r{index}", "result": result}).encode() + b"\n"
        for index, result in enumerate(results)
    )


class Hosted(ThreadingHTTPServer):
    """Enter it to start serving. `steps` are what happens to the next calls; `ranges`: downloads can be resumed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.batches: dict[str, dict[str, Any]] = {}
        self.results: dict[str, bytes] = {}
        self.steps: deque[Step] = deque()
        self.calls: list[Seen] = []
        self.ranges = False

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def add(self, succeeded: int = 0, errored: int = 0, *, processing: int = 0) -> str:
        """Add a batch that has ended, or runs if any request is in processing."""
        counts = {"processing": processing, "succeeded": succeeded, "errored": errored}
        made = batch(len(self.batches) + 1, ended=not processing, counts=counts)
        self.batches[made["id"]] = made
        self.results[made["id"]] = result_lines(succeeded, errored)
        return str(made["id"])

    def end(self, batch_id: str, succeeded: int, errored: int = 0) -> None:
        """Let a batch end."""
        made = batch(int(batch_id[-4:]), ended=True, counts={"succeeded": succeeded, "errored": errored})
        self.results[batch_id] = result_lines(succeeded, errored)
        self.batches[batch_id] = made

    def paths(self, method: str = "GET") -> list[str]:
        """Return what was asked for by this method, in order."""
        return [seen.path for seen in self.calls if seen.method == method]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that were cut on purpose."""


class Handler(BaseHTTPRequestHandler):
    """Answers one call."""

    protocol_version = "HTTP/1.1"
    server: Hosted

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        names = {name.lower(): value for name, value in self.headers.items()}
        self.server.calls.append(Seen(self.command, self.path, names, body))
        if self.server.steps and self.server.steps.popleft()(self):
            return
        url = urlsplit(self.path)
        match [self.command, *url.path.removeprefix(BATCHES).strip("/").split("/")]:
            case _ if not url.path.startswith(BATCHES):
                self.refuse(404, "not_found_error", "Not found")
            case ["GET", ""]:
                self._list({name: values[0] for name, values in parse_qs(url.query).items()})
            case ["POST", ""]:
                count = len(json.loads(body)["requests"])
                self.say(200, self.server.batches[self.server.add(processing=count)])
            case [_, batch_id, *_] if batch_id not in self.server.batches:
                self.refuse(404, "not_found_error", f"Message Batch {batch_id} not found.")
            case ["GET", batch_id, "results"]:
                self._results(batch_id)
            case ["GET", batch_id]:
                self.say(200, self.server.batches[batch_id], {"retry-after": "0"})
            case ["POST", batch_id, "cancel"]:
                self.server.batches[batch_id]["processing_status"] = "canceling"
                self.say(200, self.server.batches[batch_id])
            case ["DELETE", batch_id]:
                self._delete(batch_id)

    def _list(self, query: Mapping[str, str]) -> None:
        newest_first = [self.server.batches[name] for name in sorted(self.server.batches, reverse=True)]
        limit = int(query.get("limit", "20"))
        if before := query.get("before_id"):
            newer = [each for each in newest_first if each["id"] > before]
            page, more = newer[-limit:], len(newer) > limit
        else:
            after = query.get("after_id", "~")
            older = [each for each in newest_first if each["id"] < after]
            page, more = older[:limit], len(older) > limit
        ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        self.say(200, {"data": page, "has_more": more, "first_id": ends[0], "last_id": ends[1]})

    def _results(self, batch_id: str) -> None:
        data, headers, status = self.server.results[batch_id], {}, 200
        if self.server.ranges:
            headers["etag"] = ETAG
            wanted = self.headers.get("range")
            if wanted and self.headers.get("if-range") == ETAG:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                data, status = data[start:], 206
        self.send(status, data, headers)

    def _delete(self, batch_id: str) -> None:
        if self.server.batches[batch_id]["processing_status"] != "ended":
            text = "In progress batches cannot be deleted. Consider canceling the batch instead."
            self.refuse(400, "invalid_request_error", text)
            return
        del self.server.batches[batch_id]
        self.say(200, {"id": batch_id, "type": "message_batch_deleted"})

    # -- answers
    def say(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), headers or {})

    def refuse(self, status: int, kind: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        envelope = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_011"}
        self.say(status, envelope, {"request-id": "req_011", **(headers or {})})

    def send(self, status: int, body: bytes, headers: Mapping[str, str], *, cut_at: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut_at is None else body[:cut_at])
        if cut_at is not None:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def passing(_handler: Handler) -> bool:
    """Let a call pass."""
    return False


def busy(handler: Handler) -> bool:
    """Refuse a call for now."""
    handler.refuse(429, "rate_limit_error", "Too many requests", {"retry-after": "0"})
    return True


def lost(handler: Handler) -> bool:
    """Close the connection after the call was taken, without an answer."""
    handler.close_connection = True
    return True


def cut(batch_id: str, at: int) -> Step:
    """Send results up to a byte of the whole, and close the connection there."""

    def step(handler: Handler) -> bool:
        headers = {"etag": ETAG} if handler.server.ranges else {}
        handler.send(200, handler.server.results[batch_id], headers, cut_at=at)
        return True

    return step
