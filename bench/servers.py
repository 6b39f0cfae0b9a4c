"""Fake upstreams for the benchmarks: the cheapest HTTP servers we can write, so that the client is what is measured.

`python bench/servers.py` serves a constant valid Message of about 1.4 kB at `/v1/messages` on a port chosen by the
system, without any delay, and prints the port as its first line.
"""

import asyncio
from typing import cast

import httptools
import msgspec
import uvloop

TEXT = "The tide went out and left the harbour quiet. " * 19


def constant_reply() -> bytes:
    """Return a whole HTTP reply with a Message in it."""
    message = {
        "model": "simulated",
        "id": "msg_01AAAAAAAAAAAAAAAAAAAAAAAA",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 20,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 190,
            "service_tier": "standard",
            "inference_geo": "not_available",
        },
    }
    body = msgspec.json.encode(message)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class ConstantServer(asyncio.Protocol):
    """Answers every request at once with the same bytes."""

    reply = constant_reply()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(self.reply)


async def serve() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(ConstantServer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
