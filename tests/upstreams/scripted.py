"""A model server that misbehaves on demand: each call is answered by the script that its body names.

Raw asyncio, so that it can do what no HTTP library would: cut a reply anywhere, lie about lengths, stall.
"""

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MESSAGE = {
    "model": "tide-1",
    "id": "msg_01AAAAAAAAAAAAAAAAAAAAAAAA",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "low water"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
WHOLE = json.dumps(MESSAGE, separators=(",", ":")).encode()


@dataclass
class Call:
    """One call as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a script that stalls saw the client close the connection."""


Script = Callable[[Call], Awaitable[None]]


def reply(body: bytes, status: int = 200, headers: bytes = b"content-type: application/json\r\n") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def chunked(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n", pieces: int = 3) -> bytes:
    size = max(1, len(body) // pieces)
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return (
        head
        + b"transfer-encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts)
        + b"0\r\n\r\n"
    )


def says(data: bytes) -> Script:
    async def script(call: Call) -> None:
        call.writer.write(data)
        await call.writer.drain()

    return script


def then_close(data: bytes) -> Script:
    async def script(call: Call) -> None:
        call.writer.write(data)
        await call.writer.drain()
        call.writer.close()

    return script


def then_reset(data: bytes) -> Script:
    async def script(call: Call) -> None:
        call.writer.write(data)
        await call.writer.drain()
        call.writer.transport.abort()

    return script


async def stall(call: Call) -> None:
    with contextlib.suppress(ConnectionError):
        await call.reader.read()
    call.hung_up.set()
    call.writer.close()


def stall_after(data: bytes) -> Script:
    async def script(call: Call) -> None:
        call.writer.write(data)
        await call.writer.drain()
        await stall(call)

    return script


async def drip(call: Call) -> None:
    for byte in reply(WHOLE):
        call.writer.write(bytes([byte]))
        await call.writer.drain()
        await asyncio.sleep(0)


BOMB = gzip.compress(b"0" * 8_000_000, 9)


@dataclass
class ScriptedServer:
    """Answers by name: the body of a call is the name of its script."""

    scripts: dict[bytes, Script] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    tls: ssl.SSLContext | None = None
    connections: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.hang_up()
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
            await asyncio.sleep(0)
            self._server = None

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while not writer.is_closing():
                call = await self._read(reader, writer)
                self.calls.append(call)
                self.arrived.set()
                await self.scripts.get(call.body, says(reply(WHOLE)))(call)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Call(method, path, headers, body, reader, writer)
