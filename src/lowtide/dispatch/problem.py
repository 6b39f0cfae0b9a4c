"""Reading the error bodies of upstreams, whatever envelope they came in.

Understands Anthropic's envelope, OpenAI's (`{"error": {...}}`, `{"error": "..."}`, `{"object": "error", ...}`),
FastAPI's `{"detail": ...}` and plain text. What comes out is bounded, one line, and free of markup; it never raises.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lowtide.domain.errors import RESULT_ERROR_TYPES, ErrorType

MESSAGE_CHARS_MAX: Final = 2000
"""The most of an upstream's text that a result carries."""

_READ_BYTES_MAX: Final = 64 * 1024
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Problem:
    """An upstream's account of what went wrong; `enveloped` when it came in Anthropic's own envelope."""

    error_type: ErrorType | None
    message: str
    enveloped: bool = False

    def type_or(self, default: ErrorType) -> ErrorType:
        return self.error_type or default


def read_problem(body: bytes) -> Problem:
    """Return what an error body says; an empty message when it says nothing fit for a result."""
    try:
        value = _decode(body) if len(body) <= _READ_BYTES_MAX else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Problem(None, _text(body))
    if not isinstance(value, dict):
        return Problem(None, _one_line(value) if isinstance(value, str) else "")
    error = value.get("error")
    if isinstance(error, dict):
        message = _one_line(error.get("message") or error.get("detail"))
        return Problem(_type(error.get("type")), message, value.get("type") == "error")
    if isinstance(error, str):
        return Problem(None, _one_line(error))
    for name in ("message", "detail"):
        if name in value:
            return Problem(_type(value.get("type")), _one_line(value[name]))
    return Problem(None, "")


def _type(value: Any) -> ErrorType | None:
    return ErrorType(value) if isinstance(value, str) and value in RESULT_ERROR_TYPES else None


def _text(body: bytes) -> str:
    """Return a body that is no JSON as text, unless it is a page of markup or not text at all."""
    start = body[: MESSAGE_CHARS_MAX * 4].lstrip()
    if start[:1] in {b"<", b"{", b"["} or b"\0" in start:
        return ""
    return _one_line(start.decode(errors="replace"))


def _one_line(value: Any) -> str:
    """Return a text, or a structure such as FastAPI's list of complaints, as one bounded line."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return " ".join(text[: MESSAGE_CHARS_MAX * 2].split())[:MESSAGE_CHARS_MAX]
