"""What servers answer, as values: only what our commands look at, whatever else is there.

The bytes themselves are kept beside a batch, so that `--json` passes on what the server said and loses nothing.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec

from lowtide.client.errors import Unreadable
from lowtide.domain.outcomes import Counts, Usage

ENDED = "ended"
Shape = TypeVar("Shape")


class BatchShape(msgspec.Struct, frozen=True):
    """A batch on the wire."""

    id: str
    processing_status: str
    request_counts: Counts
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        return self.processing_status == ENDED


class Page(msgspec.Struct, frozen=True):
    """A page of a listing."""

    data: list[msgspec.Raw]
    has_more: bool = False
    last_id: str | None = None
    first_id: str | None = None


class Standing(msgspec.Struct, frozen=True):
    """Why a batch of ours stands still: a word for programs, a sentence for people."""

    reason: str
    text: str


class Live(BatchShape, frozen=True, kw_only=True):
    """How far a batch of ours is, as `/lowtide/batches/{id}` says: its counts move while it runs."""

    usage: Usage = Usage()
    rate_per_s: float | None = None
    eta_s: float | None = None
    standing_still: Standing | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A batch, and its JSON on one line as the server wrote it; a `Live` one if the server has live figures."""

    batch: BatchShape
    raw: bytes = field(repr=False)


def read(data: bytes | msgspec.Raw, shape: type[Shape]) -> Shape:
    """Return what an answer says; raises Unreadable."""
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"The answer is not one of the Message Batches API ({error}); is the URL right?") from None


def found(data: bytes | msgspec.Raw, shape: type[BatchShape] = BatchShape) -> Found:
    """Return a batch; raises Unreadable."""
    return Found(read(data, shape), one_line(bytes(data)))


def one_line(data: bytes) -> bytes:
    """Return JSON without line breaks."""
    return msgspec.json.format(data, indent=-1)


class _Error(msgspec.Struct, frozen=True):
    message: str


class _Envelope(msgspec.Struct, frozen=True):
    error: _Error
    request_id: str | None = None


def error_text(data: bytes) -> tuple[str | None, str | None]:
    """Return the text and the request id of an error's body, as far as it has them."""
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, None
    return envelope.error.message, envelope.request_id
