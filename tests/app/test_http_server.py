"""What uvicorn leaves open is closed: heads are bounded, and what is no request gets the contract's envelope."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lowtide.app import http_server
from lowtide.app.settings import HttpSettings

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body."""
    body = await Request(scope, receive).body()
    await Response(str(len(body)))(scope, receive, send)


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = http_server.server(echo, HttpSettings(), grace_s=1)
    serving = asyncio.create_task(server.serve([listener]))
    reader, writer = await asyncio.open_connection(*address)
    yield reader, writer
    writer.close()
    server.should_exit = True
    await serving


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return the status line, the headers and the body of one response."""
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head[1:] if line)
    return head[0], headers, await reader.readexactly(int(headers[b"content-length"]))


async def test_requests_follow_each_other_on_a_connection_and_no_server_names_itself(connection: Connection) -> None:
    reader, writer = connection
    for length in (0, 200_000, 1):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length + b"x" * length)
        status, headers, body = await answer(reader)
        assert (status, body) == (b"HTTP/1.1 200 OK", str(length).encode())
        assert b"server" not in headers


async def test_what_is_no_request_gets_the_envelope(connection: Connection) -> None:
    reader, writer = connection
    writer.write(b"this is no HTTP\r\n\r\n")
    status, headers, body = await answer(reader)
    told = json.loads(body)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
    assert told["request_id"].startswith("req_")
    assert headers[b"request-id"].decode() == told["request_id"].lower()
    assert await reader.read() == b""


@pytest.mark.parametrize("piece", [b"a" * 1000, b"name: value\r\n" * 100])
async def test_a_head_without_end_is_refused(connection: Connection, piece: bytes) -> None:
    reader, writer = connection
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nlong: ")
    for _ in range(http_server.HEAD_BYTES_MAX // len(piece) + 2):
        writer.write(piece)
    status, _, body = await answer(reader)
    assert status.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_a_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 0.01)
    reader, writer = connection
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await answer(reader)
    writer.write(b"GET / HTTP/1.1\r\n")
    assert await reader.read() == b""
