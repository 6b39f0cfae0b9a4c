"""A model server for the rig: answers `/v1/messages` by echoing the mark of the prompt, and logs every call first.

The log is the rig's own evidence of what reached an upstream, so a line is on disk before the reply leaves. A prompt is
`mark=<custom_id>;kind=<kind>;…`. Every call has a serial number, which stands in the reply's text and decides its usage,
so that a result line tells which call it came from and a result billed for another call's tokens shows.
Run it as a program: `python -m tests.rig.upstream --log FILE`; it prints its port.
"""

import argparse
import asyncio
import json
import os
import random
import re
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

PROMPT = re.compile(r"mark=([A-Za-z0-9_-]+);kind=([a-z]+);")


@dataclass
class Upstream:
    """The server's state: its log, and what it has seen of each mark."""

    log: int
    delay_s: tuple[float, float]
    chance: random.Random
    serial: int = 0
    calls: dict[str, int] = field(default_factory=dict)

    def note(self, mark: str, status: int) -> int:
        """Log a call durably and return its serial number."""
        self.serial += 1
        self.calls[mark] = self.calls.get(mark, 0) + 1
        line = json.dumps({"mark": mark, "serial": self.serial, "status": status, "at": time.time()})
        os.write(self.log, line.encode() + b"\n")
        os.fdatasync(self.log)
        return self.serial

    async def answer(self, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body for one call."""
        params = json.loads(body)
        found = PROMPT.search(json.dumps(params["messages"]))
        if found is None:
            return 400, error("invalid_request_error", "the prompt has no mark")
        mark, kind = found.groups()
        status = status_of(kind, self.calls.get(mark, 0))
        serial = self.note(mark, status)
        await asyncio.sleep(self.chance.uniform(*self.delay_s))
        if status != HTTPStatus.OK:
            return status, error("invalid_request_error" if status == HTTPStatus.BAD_REQUEST else "api_error", kind)
        return status, message(params["model"], mark, serial)


def status_of(kind: str, earlier: int) -> int:
    """Return how a call of this kind ends, given how many calls of the mark came before."""
    match kind:
        case "bad":
            return 400
        case "flaky" if earlier == 0:
            return 529
        case _:
            return 200


def usage_of(serial: int) -> dict[str, int]:
    """Return the usage that the call with this number reports; no two neighbours agree."""
    return {
        "input_tokens": 1 + serial % 97,
        "output_tokens": 1 + serial % 89,
        "cache_creation_input_tokens": serial % 3,
        "cache_read_input_tokens": serial % 5,
    }


def message(model: str, mark: str, serial: int) -> bytes:
    """Return a Message that names the mark and the call."""
    return json.dumps(
        {
            "id": f"msg_01{serial:022d}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": f"echo {mark} call {serial}"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage_of(serial),
        }
    ).encode()


def error(error_type: str, text: str) -> bytes:
    """Return an error response."""
    return json.dumps({"type": "error", "error": {"type": error_type, "message": text}}).encode()


async def serve(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the calls of one connection, one after the other."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?im)^content-length: *(\d+)", head)
            if re.search(r"(?im)^expect: *100-continue", head):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith("POST /v1/messages "):
                status, reply = await upstream.answer(body)
            else:
                status, reply = 200, b'{"data":[],"has_more":false,"first_id":null,"last_id":null}'
            after = "retry-after: 0\r\n" if status == 529 else ""
            writer.write(
                f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{after}"
                f"content-length: {len(reply)}\r\n\r\n".encode()
                + reply
            )
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client was killed, which is the point of the rig
    finally:
        writer.close()


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay-s", type=float, nargs=2, default=(0.02, 0.2))
    given = parser.parse_args()
    log = os.open(given.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    upstream = Upstream(log, tuple(given.delay_s), random.Random(given.seed))
    server = await asyncio.start_server(lambda r, w: serve(upstream, r, w), "127.0.0.1", 0, backlog=1024, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
