"""A model server on a real socket: it notes every call, and answers as the name of the model asks for."""

import asyncio
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import Receive, Scope, Send

MESSAGE = (
    b'{ "id":"msg_1", "type":"message","role":"assistant","model":"m-20260101",\n"content":[{"type":"text","text":'
    b'"caf\xc3\xa9\xe2\x80\xa8"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":1,"output_tokens":2}}'
)
EVENTS = (b"event: message_start\ndata: {}\n\n", b"event: ping\ndata: {}\n\n", b"event: message_stop\ndata: {}\n\n")
ERROR = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_theirs"}'
BARE_ERROR = b'{"detail":"nothing here"}'
MODELS = {
    "data": [
        {"type": "model", "id": "old", "display_name": "Old", "created_at": "2025-01-01T00:00:00Z"},
        {"type": "model", "id": "org/new", "display_name": "New", "created_at": "2026-01-01T00:00:00Z"},
    ],
    "has_more": False,
    "first_id": "old",
    "last_id": "org/new",
}


@dataclass(frozen=True)
class Seen:
    """A call as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class ModelServer:
    """Enter it to serve. `seen` are the calls so far; `gone` is set when a client leaves a reply of the model `slow`."""

    seen: list[Seen] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    next_event: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Each release lets one more event of a stream go."""

    def __enter__(self) -> Self:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_config=None,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self.socket],), name="models")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(Seen(scope["path"], headers, body))
        if scope["method"] == "GET":
            await _reply(send, 200, json.dumps(MODELS).encode())
            return
        params: dict[str, Any] = json.loads(body)
        match params["model"]:
            case "failing":
                await _reply(send, 429, ERROR, (b"retry-after", b"7"))
            case "bare":
                await _reply(send, 404, BARE_ERROR)
            case "breaking":
                await _start(send, 200, (b"content-length", b"100"))
                await send({"type": "http.response.body", "body": b"{", "more_body": True})
            case "slow":
                self.arrived.set()
                await receive()
                self.gone.set()
            case _ if scope["path"].endswith("count_tokens"):
                await _reply(send, 200, b'{"input_tokens":7}')
            case _ if params.get("stream"):
                await self._stream(send)
            case _:
                await _reply(send, 200, MESSAGE)

    async def _stream(self, send: Send) -> None:
        await _start(send, 200, (b"content-type", b"text/event-stream; charset=utf-8"))
        for event in EVENTS:
            await asyncio.to_thread(self.next_event.acquire)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    own = [(b"request-id", b"req_theirs"), (b"anthropic-ratelimit-requests-limit", b"50"), (b"server", b"theirs")]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})


async def _reply(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await _start(send, status, (b"content-type", b"application/json"), *headers)
    await send({"type": "http.response.body", "body": body})
