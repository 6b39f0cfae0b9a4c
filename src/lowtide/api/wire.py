"""The JSON of the contract: compact, keys in the observed order, every key there, null when unset.

Source: `message-batches-api.md`, sections 2, 3, 5, 8 and 12. A struct's fields stand in the order of the wire.
"""

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from lowtide.api.envelope import JSON
from lowtide.domain.outcomes import Counts
from lowtide.domain.states import BatchState
from lowtide.domain.times import format_time
from lowtide.ports.metadata import Batch, Page
from lowtide.ports.upstream import Model

_encode = msgspec.json.Encoder().encode


class MessageBatch(msgspec.Struct, frozen=True):
    """A batch as clients see it."""

    id: str
    type: str
    processing_status: str
    request_counts: Counts
    ended_at: str | None
    created_at: str
    expires_at: str
    archived_at: str | None
    cancel_initiated_at: str | None
    results_url: str | None


class Deleted(msgspec.Struct, frozen=True):
    """What a delete answers."""

    id: str
    type: str = "message_batch_deleted"


class ModelInfo(msgspec.Struct, frozen=True):
    """A model as clients see it; what an upstream does not say of it is null."""

    type: str
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: None = None
    lifecycle: str = "active"
    deprecated_at: str | None = None
    retires_at: str | None = None
    line: None = None


class Listing(msgspec.Struct, frozen=True):
    """A page of batches or models."""

    data: Sequence[MessageBatch] | Sequence[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


def json_response(value: msgspec.Struct, *, headers: dict[str, str] | None = None) -> Response:
    """Return a 200 with `value` as its JSON."""
    return Response(_encode(value), headers=headers, media_type=JSON)


def message_batch(batch: Batch, base_url: str) -> MessageBatch:
    """Return `batch` for the wire. It has a `results_url` from its end until it is archived."""
    url = f"{base_url}/v1/messages/batches/{batch.id}/results" if batch.state is BatchState.ENDED else None
    return MessageBatch(
        id=batch.id,
        type="message_batch",
        processing_status=processing_status(batch.state),
        request_counts=batch.counts,
        ended_at=_time(batch.ended_us),
        created_at=format_time(batch.created_us),
        expires_at=format_time(batch.expires_us),
        archived_at=_time(batch.archived_us),
        cancel_initiated_at=_time(batch.cancel_initiated_us),
        results_url=url,
    )


def processing_status(state: BatchState) -> str:
    """Return the wire's word for a state: an archived batch is one that ended."""
    match state:
        case BatchState.IN_PROGRESS | BatchState.CANCELING:
            return state.value
        case BatchState.ENDED | BatchState.ARCHIVED | BatchState.DELETED:
            return BatchState.ENDED.value


def batch_listing(page: Page, base_url: str) -> Listing:
    """Return a page of batches for the wire."""
    return listing([message_batch(batch, base_url) for batch in page.batches], has_more=page.has_more)


def model_info(model: Model) -> ModelInfo:
    """Return a model for the wire."""
    return ModelInfo("model", model.id, model.display_name, format_time(model.created_us))


def listing(data: Sequence[MessageBatch] | Sequence[ModelInfo], *, has_more: bool) -> Listing:
    """Return a page; the ids of its ends are null when it is empty."""
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return Listing(data, has_more, *ends)


def _time(moment_us: int | None) -> str | None:
    return None if moment_us is None else format_time(moment_us)
