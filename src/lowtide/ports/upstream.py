"""The port of model servers: one call out, raw bytes in and out.

A driver moves bytes; it judges nothing but the transport. What a reply means is `dispatch.reply`'s matter.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from lowtide.domain.errors import LowtideError


class UpstreamError(LowtideError):
    """A call that brought no whole reply. The text is fit for a log and for a result: it holds no content."""


class UpstreamUnreachable(UpstreamError):
    """No connection was made: nothing was sent, the upstream is down or misnamed."""


class UpstreamBroke(UpstreamError):
    """The connection ended before the whole reply was there (a reset, half a body): the request may have run."""


class UpstreamTimeout(UpstreamError):
    """No whole reply within the deadline."""


class UpstreamReplyTooLarge(UpstreamError):
    """The reply, as sent or decoded, passed the bound."""


class Reply(msgspec.Struct, frozen=True):
    """A whole reply. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ReplyStream(Protocol):
    """A reply whose body comes in pieces, for interactive calls."""

    status: int
    headers: Mapping[str, str]

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises UpstreamError when it breaks off. Slow readers slow the upstream."""
        ...

    async def close(self) -> None:
        """Give the call up; the upstream sees the connection close."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an upstream offers, as far as it says."""

    id: str
    display_name: str
    created_us: int


class Upstream(Protocol):
    """One model server, or several replicas of it behind one name."""

    @property
    def name(self) -> str: ...

    @property
    def in_flight_max(self) -> int: ...

    @property
    def fetches_urls(self) -> bool:
        """Whether this upstream may fetch image and document URLs."""
        ...

    @property
    def aliases(self) -> Mapping[str, str]:
        """The names, without wildcards, under which a model is offered, and the name by which the upstream knows it."""
        ...

    def serves(self, model: str) -> bool:
        """Tell whether the configuration lets this model go here (its patterns and aliases)."""
        ...

    def prepare(self, params: bytes, model: str) -> bytes:
        """Return `params` with the model's alias spliced in where one applies; the same bytes otherwise."""
        ...

    async def send(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """POST to `/v1/messages` and return the whole reply; raises UpstreamError. Cancelling aborts the call.

        The driver adds its own credential and content type. `anthropic-version`, `anthropic-beta` and profile
        headers come in `headers`; a client's credential never does.
        """
        ...

    async def open(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> ReplyStream:
        """POST to `path` and return the reply as a stream, once its head is there; raises UpstreamError."""
        ...

    async def models(self) -> Sequence[Model]:
        """Return the models that the upstream lists now; raises UpstreamError."""
        ...

    async def close(self) -> None: ...
