"""Answers as bytes: how a reply, a refusal or a fault looks on the wire.

Invariant: every refusal has the contract's envelope, with the `request_id` of its header
(`message-batches-api.md`, section 10).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import msgspec

from lowtide.domain.errors import ContractError
from lowtide.domain.ids import CALL, new_id
from lowtide.simulate.faults import STATUSES, Fault
from lowtide.simulate.reply import LABEL

JSON: Final = "application/json"
_BOMB_BYTES: Final = 64 * 1024 * 1024
_DEPTH: Final = 200_000
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole response."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    request_id: str = field(default_factory=lambda: new_id(CALL))

    def header_list(self) -> list[tuple[bytes, bytes]]:
        given = {
            "content-type": self.content_type,
            "content-length": str(len(self.body)),
            "request-id": self.request_id,
        } | self.headers
        return [(name.encode(), value.encode()) for name, value in given.items()]


def json_answer(value: Any) -> Answer:
    """Return a 200 of JSON."""
    return Answer(200, _encode(value))


def refusal(status: int, error_type: str, text: str, headers: dict[str, str] | None = None) -> Answer:
    """Return an error in the contract's envelope."""
    request_id = new_id(CALL)
    retried = status in {408, 409, 429} or status >= 500
    return Answer(
        status,
        _envelope(error_type, text, request_id),
        headers=({} if retried else {"x-should-retry": "false"}) | (headers or {}),
        request_id=request_id,
    )


def refused(error: ContractError) -> Answer:
    """Return the refusal that one of the contract's errors stands for."""
    return refusal(error.status, error.error_type, error.message, error.headers)


def faulty_status(fault: Fault) -> Answer:
    """Return the refusal that a fault of a status stands for."""
    assert fault.kind is not None
    error_type, text = STATUSES[fault.kind]
    headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
    return refusal(int(fault.kind), error_type, text, headers)


def faulty_success(kind: str) -> Answer | None:
    """Return a 200 that is no Message, for the kinds that need no engine; None for the others."""
    make = _SUCCESSES.get(kind)
    return None if make is None else make()


def bent(kind: str | None, body: bytes) -> bytes:
    """Return a right answer's body, changed as a fault of `kind` wants it."""
    match kind:
        case "line-breaks":
            label = LABEL.encode()
            body = body.replace(label, label + "\u2028\u2029\u0085".encode())
            return msgspec.json.format(body).replace(b"\n", b"\r\n")
        case "llama-cpp":
            message = msgspec.json.decode(body)
            message["id"] = "chatcmpl-" + message["id"].removeprefix("msg_")
            if message["stop_reason"] == "stop_sequence":
                message["stop_reason"] = "end_turn"
            return _encode(message)
        case _:
            return body


def _envelope(error_type: str, text: str, request_id: str) -> bytes:
    return _encode({"type": "error", "error": {"type": error_type, "message": text}, "request_id": request_id})


def _near_message() -> bytes:
    """Return a Message whose text is TEXT."""
    return _encode(
        {
            "model": "simulated",
            "id": "msg_simulated",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "TEXT"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    )


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(6, wbits=31)
    before, after = _near_message().split(b"TEXT")
    chunk = b"a" * 1024 * 1024
    parts = [packer.compress(before)]
    parts += [packer.compress(chunk) for _ in range(_BOMB_BYTES // len(chunk))]
    return b"".join([*parts, packer.compress(after), packer.flush()])


def _page() -> Answer:
    page = f"<!doctype html>\n<title>{LABEL} gateway</title>\n<h1>Please sign in</h1>\n"
    return Answer(200, page.encode(), "text/html; charset=utf-8")


_SUCCESSES: Final[dict[str, Callable[[], Answer]]] = {
    "empty": lambda: Answer(200, b""),
    "html": _page,
    "wrong-json": lambda: json_answer({"simulated": True, "object": "list", "data": []}),
    "broken-json": lambda: Answer(200, _near_message().partition(b"TEXT")[0]),
    "bad-utf8": lambda: Answer(200, _near_message().replace(b"TEXT", LABEL.encode() + b" \xff\xfe\xc3(")),
    "error-in-200": lambda: Answer(200, _envelope("overloaded_error", "Overloaded", new_id(CALL))),
    "deep": lambda: Answer(200, _near_message().replace(b'"TEXT"', b"[" * _DEPTH + b"]" * _DEPTH)),
    "gzip-bomb": lambda: Answer(200, _bomb(), headers={"content-encoding": "gzip"}),
}
