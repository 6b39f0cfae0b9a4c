"""Uploads, and creating a batch once (`docs/semantics.md`, "Create").

The match with an earlier create, the limit on queued requests and the insert are one transaction; all creates of a
database take turns in it. A refusal for the limit is noted, so that the retry which follows it is not taken for a retry
of an equal batch made before.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Row, Text, bindparam, delete, func, insert, select, update

from lowtide.domain.errors import KeyReused, UploadGone
from lowtide.domain.states import BatchState
from lowtide.domain.times import HOUR_US
from lowtide.ports.metadata import Batch, Created, Creation, NewBatch, NewChunk
from lowtide.storage import batch_rows
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import ENDED, batch, chunk, creation, upload

RETRY_WINDOW_US = HOUR_US
_RETRY_COUNT_MAX = 62
"""Retry counts are bits of one integer. SDKs retry twice unless told otherwise; what claims more shares the last bit."""

ADD_UPLOAD = insert(upload)
FIND_UPLOAD = select(upload.c.id).where(
    upload.c.id == bindparam("upload"), upload.c.workspace == bindparam("of_workspace")
)
TAKE_UPLOAD = (
    delete(upload)
    .where(upload.c.id == bindparam("upload"), upload.c.workspace == bindparam("of_workspace"))
    .where(upload.c.abandoned.is_(False))
    .returning(upload.c.id)
)
ABANDON_UPLOAD = (
    update(upload)
    .values(abandoned=True)
    .where(upload.c.id == bindparam("upload"), upload.c.workspace == bindparam("of_workspace"))
)

FIND_IDEMPOTENT = select(creation).where(
    creation.c.workspace == bindparam("workspace"), creation.c.idempotency_key == bindparam("idempotency_key")
)
FIND_EQUAL = select(creation).where(
    creation.c.workspace == bindparam("workspace"),
    creation.c.credential == bindparam("credential"),
    creation.c.body_digest == bindparam("body_digest"),
    creation.c.created_us >= bindparam("since_us"),
)
FIND_REFUSED = FIND_EQUAL.where(
    creation.c.batch_key.is_(None), creation.c.retry_count == bindparam("retry_count") - 1
).limit(1)
_bit = bindparam("bit", type_=BigInteger)
FIND_RETRIED = (
    FIND_EQUAL.where(
        creation.c.batch_key.is_not(None),
        creation.c.idempotency_key.is_(None),
        creation.c.retry_count < bindparam("retry_count"),
        creation.c.absorbed.bitwise_and(_bit) == 0,
        creation.c.named.is_(False),
    )
    .order_by(creation.c.key)
    .limit(1)
)
ABSORB = (
    update(creation)
    .values(absorbed=creation.c.absorbed.bitwise_or(_bit))
    .where(creation.c.key == bindparam("creation"))
)
ADD_CREATION = insert(creation)
DROP_CREATION = delete(creation).where(creation.c.key == bindparam("creation"))
DROP_OLD_REFUSALS = delete(creation).where(
    creation.c.batch_key.is_(None), creation.c.created_us < bindparam("since_us")
)

QUEUED = select(func.coalesce(func.sum(batch.c.total), 0)).where(
    batch.c.workspace == bindparam("workspace"), batch.c.state != ENDED
)
ADD_BATCH = insert(batch).returning(batch.c.key)
FIND_REPEATED = select(batch).where(batch.c.id == bindparam("id"), batch.c.workspace == bindparam("workspace"))
_CHUNK_COLUMNS = (
    ("group", Integer()),
    ("model", Text()),
    ("offset", BigInteger()),
    ("length", BigInteger()),
    ("head_length", BigInteger()),
    ("head_checksum", BigInteger()),
    ("size", Integer()),
)
_planned = records(("position", Integer()), *_CHUNK_COLUMNS)
ADD_CHUNKS = insert(chunk).from_select(
    ["batch_key", *(name for name, _ in _CHUNK_COLUMNS)],
    select(bindparam("of_batch", type_=BigInteger), *(_planned.c[name] for name, _ in _CHUNK_COLUMNS)).order_by(
        _planned.c.position
    ),
)
"""In order of the plan, so that keys grow with it."""


def begin_upload(conn: Connection, now: Moment, workspace: str, upload_id: str, request_key: str) -> None:
    """Write an upload down; a repeat finds it written."""
    if conn.execute(FIND_UPLOAD, {"upload": upload_id, "of_workspace": workspace}).first() is None:
        values = {"id": upload_id, "workspace": workspace, "request_key": request_key, "created_us": now.wall_us}
        conn.execute(ADD_UPLOAD, values)


def abandon_upload(conn: Connection, _now: Moment, workspace: str, upload_id: str) -> None:
    """Mark an upload as one that never becomes a batch."""
    conn.execute(ABANDON_UPLOAD, {"upload": upload_id, "of_workspace": workspace})


def match(conn: Connection, now: Moment, workspace: str, made: Creation) -> Batch | None:
    """Return the batch that this create is a retry of, noting that this count absorbed it; raises KeyReused."""
    if made.idempotency_key is not None:
        return _match_key(conn, workspace, made)
    found = _retried(conn, now, workspace, made)
    if found is None:
        return None
    conn.execute(ABSORB, {"creation": found.key, "bit": _bit_of(made.retry_count)})
    return batch_rows.find_by_key(conn, found.batch_key)


def may_match(conn: Connection, now: Moment, workspace: str, made: Creation) -> bool:
    """Tell, without writing, whether `match` would find a batch; raises KeyReused."""
    if made.idempotency_key is not None:
        return _match_key(conn, workspace, made) is not None
    return _retried(conn, now, workspace, made) is not None


def create_batch(conn: Connection, now: Moment, new: NewBatch, chunks: Sequence[NewChunk]) -> Created | None:
    """Store a batch, or find the one that this create repeats; None when the limit on queued requests refuses it."""
    repeated = conn.execute(FIND_REPEATED, {"id": new.id, "workspace": new.workspace}).one_or_none()
    if repeated is not None:
        return Created(batch_rows.to_batch(repeated), made=True)
    earlier = match(conn, now, new.workspace, new.creation)
    if earlier is not None:
        return Created(earlier, made=False)
    total = sum(planned.size for planned in chunks)
    if new.queued_requests_max and _queued(conn, new.workspace) + total > new.queued_requests_max:
        _note(conn, now, new, None)
        return None
    if conn.execute(TAKE_UPLOAD, {"upload": new.upload, "of_workspace": new.workspace}).first() is None:
        raise UploadGone(f"upload {new.upload} is gone")
    key = conn.execute(ADD_BATCH, _batch_values(now, new, total, len(chunks))).scalar_one()
    conn.execute(ADD_CHUNKS, {"of_batch": key, "rows": packed(map(_chunk_row, range(len(chunks)), chunks))})
    _note(conn, now, new, key)
    return Created(batch_rows.find_by_key(conn, key), made=True)


def _match_key(conn: Connection, workspace: str, made: Creation) -> Batch | None:
    values = {"workspace": workspace, "idempotency_key": made.idempotency_key}
    found = conn.execute(FIND_IDEMPOTENT, values).one_or_none()
    if found is None:
        return None
    if found.body_digest != made.body_digest:
        raise KeyReused
    return batch_rows.find_by_key(conn, found.batch_key)


def _retried(conn: Connection, now: Moment, workspace: str, made: Creation) -> Row[Any] | None:
    """Return the create that this one is a stock SDK's retry of, unless it is the retry of a refused one."""
    if made.retry_count == 0:
        return None
    values = _equal(now, workspace, made)
    if conn.execute(FIND_REFUSED, values).first() is not None:
        return None
    return conn.execute(FIND_RETRIED, values | {"bit": _bit_of(made.retry_count)}).one_or_none()


def _equal(now: Moment, workspace: str, made: Creation) -> dict[str, int | str]:
    return {
        "workspace": workspace,
        "credential": made.credential,
        "body_digest": made.body_digest,
        "retry_count": made.retry_count,
        "since_us": now.wall_us - RETRY_WINDOW_US,
    }


def _bit_of(retry_count: int) -> int:
    return 1 << min(retry_count, _RETRY_COUNT_MAX)


def _queued(conn: Connection, workspace: str) -> int:
    return int(conn.execute(QUEUED, {"workspace": workspace}).scalar_one())


def _note(conn: Connection, now: Moment, new: NewBatch, batch_key: int | None) -> None:
    """Note how a batch came to be, or that a create was refused; the note of the refusal before this one is spent."""
    made = new.creation
    equal = _equal(now, new.workspace, made)
    if made.idempotency_key is not None and batch_key is None:
        return
    spent = conn.execute(FIND_REFUSED, equal).first()
    if spent is not None:
        conn.execute(DROP_CREATION, {"creation": spent.key})
    conn.execute(DROP_OLD_REFUSALS, {"since_us": equal["since_us"]})
    values = {name: equal[name] for name in ("workspace", "credential", "body_digest", "retry_count")}
    idempotency = {"idempotency_key": made.idempotency_key, "batch_key": batch_key, "created_us": now.wall_us}
    conn.execute(ADD_CREATION, values | idempotency)


def _batch_values(now: Moment, new: NewBatch, total: int, chunks: int) -> dict[str, int | str]:
    return {
        "id": new.id,
        "workspace": new.workspace,
        "state": BatchState.IN_PROGRESS.value,
        "created_us": now.wall_us,
        "expires_us": now.wall_us + new.window_us,
        "request_key": new.request_key,
        "headers": batch_rows.kept(new.headers, new.models),
        "total": total,
        "open_chunks": chunks,
    }


def _chunk_row(position: int, planned: NewChunk) -> tuple[int | str, ...]:
    """Return a planned chunk's values. Databases end a text at NUL: cut there, a model could become another's name."""
    return (
        position,
        planned.group,
        planned.model.replace("\0", "\ufffd"),
        planned.offset,
        planned.length,
        planned.head_length,
        planned.head_checksum,
        planned.size,
    )
