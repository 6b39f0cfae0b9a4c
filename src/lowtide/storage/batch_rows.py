"""How a batch's row becomes the port's value, and how a client's id finds that row."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, select

from lowtide.domain.outcomes import Counts, Usage
from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Batch
from lowtide.storage.tables import batch

FIND: Select[Any] = select(batch).where(
    batch.c.id == bindparam("id"), batch.c.workspace == bindparam("workspace"), batch.c.deleted_us.is_(None)
)
FIND_BY_KEY: Select[Any] = select(batch).where(batch.c.key == bindparam("key"))

MODELS = ":models"
"""Where the `headers` column keeps the patterns of the models that a batch may use; no header can have this name."""

_encode = msgspec.json.Encoder().encode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode


def find(conn: Connection, workspace: str, batch_id: str) -> Batch | None:
    """Return a batch, or None for an unknown, deleted or foreign id."""
    row = conn.execute(FIND, {"id": batch_id, "workspace": workspace}).one_or_none()
    return None if row is None else to_batch(row)


def find_by_key(conn: Connection, key: int) -> Batch:
    """Return the batch with this key, deleted or not."""
    return to_batch(conn.execute(FIND_BY_KEY, {"key": key}).one())


def to_batch(row: Row[Any]) -> Batch:
    """Return the port's batch; its counts are all `processing` until it has ended, as the contract documents."""
    ended = Counts(0, row.succeeded, row.errored, row.canceled, row.expired)
    return Batch(
        id=row.id,
        workspace=row.workspace,
        state=_state(row),
        counts=Counts(processing=row.total) if row.ended_us is None else ended,
        created_us=row.created_us,
        expires_us=row.expires_us,
        ended_us=row.ended_us,
        archived_us=row.archived_us,
        cancel_initiated_us=row.cancel_initiated_us,
        request_key=row.request_key,
        usage=to_usage(row),
    )


def to_usage(row: Row[Any]) -> Usage:
    """Return the four usage columns of a row."""
    return Usage(row.input_tokens, row.output_tokens, row.cache_creation_input_tokens, row.cache_read_input_tokens)


def kept(headers: Mapping[str, str], models: Sequence[str]) -> str:
    """Return what a batch's row keeps of its create: the headers, and the patterns of its models."""
    return _encode(dict(headers) | ({MODELS: " ".join(models)} if models else {})).decode()


def to_kept(text: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return the headers and the patterns that a batch's row keeps."""
    headers = _decode_headers(text)
    return headers, tuple(headers.pop(MODELS, "").split())


def _state(row: Row[Any]) -> BatchState:
    if row.deleted_us is not None:
        return BatchState.DELETED
    if row.archived_us is not None:
        return BatchState.ARCHIVED
    return BatchState(row.state)
