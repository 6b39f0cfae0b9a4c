"""The tables, and the nonsense that they refuse.

Types and expressions are those that SQLite and PostgreSQL share. Keys are never reused: a worker that slept through the
purge of its batch must not find its chunk's key on another chunk. Rules kept here, whatever a statement does:
counts-add-up (a chunk's counts are the popcount of its bitmap, an ended batch's outcomes sum to its total), and a chunk
is leased exactly while a session has it, closed exactly when nothing of it is outstanding.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    cast,
    false,
    literal_column,
)
from sqlalchemy.sql.elements import ColumnElement

from lowtide.domain.limits import CHUNK_REQUESTS_MAX

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

Key = BigInteger().with_variant(Integer(), "sqlite")
"""A growing key. SQLite counts up only in a column that is literally INTEGER; its integers have 64 bits all the same."""

# Literals, not bound values: SQLite proves that a partial index applies only from the text of a statement.
OPEN: ColumnElement[str] = literal_column("'open'", String)
LEASED: ColumnElement[str] = literal_column("'leased'", String)
CLOSED: ColumnElement[str] = literal_column("'closed'", String)
IN_PROGRESS: ColumnElement[str] = literal_column("'in_progress'", String)
CANCELING: ColumnElement[str] = literal_column("'canceling'", String)
ENDED: ColumnElement[str] = literal_column("'ended'", String)
PURGED: ColumnElement[int] = literal_column("2", Integer)
MERGED: ColumnElement[int] = literal_column("0", Integer)
COMMITTED: ColumnElement[int] = literal_column("1", Integer)


def popcount(bitmap: str) -> str:
    """Return SQL that counts the set bits of a 32-bit bitmap by adding neighbours, in pairs, nibbles and bytes."""
    pairs = f"({bitmap} - (({bitmap} >> 1) & 1431655765))"
    nibbles = f"(({pairs} & 858993459) + (({pairs} >> 2) & 858993459))"
    octets = f"(({nibbles} + ({nibbles} >> 4)) & 252645135)"
    return f"((({octets} * 16843009) >> 24) & 255)"


def power_of_two(exponent: ColumnElement[int]) -> ColumnElement[int]:
    """Return 2 to `exponent` as a 64-bit expression: 1 shifted by 32 passes a plain integer of PostgreSQL."""
    return cast(literal_column("1"), BigInteger).bitwise_lshift(exponent)


def _usage() -> tuple[Column[int], ...]:
    names = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return tuple(Column(name, BigInteger, nullable=False, server_default="0") for name in names)


def _counts(*names: str) -> tuple[Column[int], ...]:
    return tuple(Column(name, Integer, nullable=False, server_default="0") for name in names)


def _not_negative(*names: str) -> CheckConstraint:
    return CheckConstraint(" AND ".join(f"{name} >= 0" for name in names), name="not_negative")


def _partial_index(name: str, where: ColumnElement[bool], *columns: Column[Any]) -> Index:
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


batch = Table(
    "batch",
    metadata,
    Column("key", Key, primary_key=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("workspace", String(80), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("cancel_initiated_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("archived_us", BigInteger),
    Column("deleted_us", BigInteger),
    Column("purge", Integer, nullable=False, server_default="0"),
    Column("request_key", String(200), nullable=False),
    Column("headers", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("open_chunks", Integer, nullable=False),
    *_counts("succeeded", "errored", "canceled", "expired"),
    *_usage(),
    Column("generation", Integer, nullable=False, server_default="0"),
    Column("merged", Boolean, nullable=False, server_default=false()),
    CheckConstraint("state IN ('in_progress', 'canceling', 'ended')", name="state"),
    CheckConstraint("(state = 'ended') = (ended_us IS NOT NULL)", name="ended_has_time"),
    CheckConstraint("state <> 'ended' OR open_chunks = 0", name="ended_has_no_open_chunk"),
    CheckConstraint("state <> 'ended' OR succeeded + errored + canceled + expired = total", name="ended_counts_add_up"),
    CheckConstraint("state <> 'canceling' OR cancel_initiated_us IS NOT NULL", name="canceling_has_time"),
    CheckConstraint("ended_us IS NOT NULL OR (archived_us IS NULL AND deleted_us IS NULL)", name="leaves_after_end"),
    CheckConstraint("purge IN (0, 1, 2)", name="purge"),
    CheckConstraint("purge = 0 OR archived_us IS NOT NULL OR deleted_us IS NOT NULL", name="purged_after_leaving"),
    _not_negative("total", "open_chunks", "succeeded", "errored", "canceled", "expired"),
    sqlite_autoincrement=True,
)
"""`purge` says how far the rows and objects of a batch that left are gone: 0 not begun, 1 begun, 2 done.

`generation` counts the merges that moved its blocks; `merged` says that no further merge is worth it.
"""

Index("ix_batch_listed", batch.c.workspace, batch.c.key)
_partial_index("ix_batch_running", batch.c.state != ENDED, batch.c.workspace, batch.c.state, batch.c.total)
_partial_index("ix_batch_in_progress", batch.c.state == IN_PROGRESS, batch.c.key)
_partial_index("ix_batch_canceling", batch.c.state == CANCELING, batch.c.key)
_partial_index("ix_batch_expiring", batch.c.state != ENDED, batch.c.expires_us)
_partial_index("ix_batch_retiring", and_(batch.c.state == ENDED, batch.c.archived_us.is_(None)), batch.c.created_us)
_partial_index(
    "ix_batch_archived", and_(batch.c.archived_us.is_not(None), batch.c.purge != PURGED), batch.c.archived_us
)
_partial_index("ix_batch_merging", and_(batch.c.state == ENDED, batch.c.merged == false()), batch.c.key)
_partial_index("ix_batch_deleted", batch.c.deleted_us.is_not(None), batch.c.deleted_us)

chunk = Table(
    "chunk",
    metadata,
    Column("key", Key, primary_key=True),
    Column("batch_key", Key, ForeignKey(batch.c.key), nullable=False),
    Column("group", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("head_length", BigInteger, nullable=False),
    Column("head_checksum", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),
    Column("state", String(16), nullable=False, server_default="open"),
    Column("session", String(40)),
    Column("attempt", BigInteger, nullable=False, server_default="0"),
    Column("progressed", Boolean, nullable=False, server_default=false()),
    Column("resolved", BigInteger, nullable=False, server_default="0"),
    Column("condemned", BigInteger, nullable=False, server_default="0"),
    *_counts("succeeded", "errored"),
    *_usage(),
    Column("closing", String(16)),
    Column("closing_error", Text),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("tries", String(2 * CHUNK_REQUESTS_MAX), nullable=False, server_default=""),
    CheckConstraint("state IN ('open', 'leased', 'closed')", name="state"),
    CheckConstraint(f"size BETWEEN 1 AND {CHUNK_REQUESTS_MAX}", name="size"),
    CheckConstraint("resolved >= 0 AND resolved < (CAST(1 AS BIGINT) << size)", name="resolved"),
    CheckConstraint("condemned >= 0 AND condemned < (CAST(1 AS BIGINT) << size)", name="condemned"),
    CheckConstraint(f"succeeded + errored = {popcount('resolved')}", name="counts_add_up"),
    CheckConstraint(
        "(state = 'closed') = (succeeded + errored = size OR closing IS NOT NULL)", name="closed_has_no_outstanding"
    ),
    CheckConstraint("(state = 'leased') = (session IS NOT NULL)", name="leased_has_session"),
    CheckConstraint("closing IN ('errored', 'canceled', 'expired')", name="closing"),
    CheckConstraint(
        "(closing_error IS NOT NULL) = (closing IS NOT NULL AND closing = 'errored')", name="errored_has_error"
    ),
    _not_negative(
        *("succeeded", "errored", "losses", "attempt", "input_tokens", "output_tokens"),
        *("cache_creation_input_tokens", "cache_read_input_tokens"),
    ),
    sqlite_autoincrement=True,
)
"""`tries` holds one byte per request as two hex digits."""

Index("ix_chunk_batch", chunk.c.batch_key, chunk.c.key)
_partial_index("ix_chunk_live", chunk.c.state != CLOSED, chunk.c.batch_key, chunk.c.state, chunk.c.key, chunk.c.losses)
_partial_index("ix_chunk_session", chunk.c.session.is_not(None), chunk.c.session)
_partial_index("ix_chunk_closing", chunk.c.closing.is_not(None), chunk.c.batch_key, chunk.c.key)

session = Table(
    "session",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("worker", String(200), nullable=False, index=True),
    Column("boot", String(40), nullable=False),
    Column("lease_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("since_us", BigInteger, nullable=False, server_default="0"),
    Column("report_number", BigInteger, nullable=False, server_default="0"),
    Column("report", Text, nullable=False, server_default=""),
    CheckConstraint("lease_us > 0", name="lease"),
)
"""The sessions that are not past: a session without a row is past for good. `until_us` is on the store's lease clock.

`report` is what the worker said last, as JSON; the counters in it went to `counter`.
"""

counter = Table(
    "counter",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("labels", String(200), primary_key=True),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("value >= 0", name="not_negative"),
)
"""Sums of what workers reported; they never go back. `labels` is a JSON list."""

segment = Table(
    "segment",
    metadata,
    Column("key", Key, primary_key=True),
    Column("session", String(40), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("object_key", String(200), nullable=False, unique=True),
    Column("length", BigInteger, nullable=False),
    Column("ended", Text, nullable=False),
    Column("committed_us", BigInteger, nullable=False, server_default="0"),
    Column("emptied_us", BigInteger),
    Column("gone", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("session", "number"),
    CheckConstraint("length >= 0", name="length"),
    sqlite_autoincrement=True,
)
"""`ended` lists the batches that this commit ended, so that its repeat after a lost answer says the same.

`emptied_us` is when the last of its blocks went while parts stay; `gone` says that its object was doomed for it.
"""

_partial_index("ix_segment_emptied", segment.c.emptied_us.is_not(None), segment.c.emptied_us)

block = Table(
    "block",
    metadata,
    Column("segment", Key, ForeignKey(segment.c.key), primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_key", Key, ForeignKey(batch.c.key), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("refused", Boolean, nullable=False),
    Column("place", Integer, nullable=False, server_default="1"),
    CheckConstraint("length > 0", name="length"),
    CheckConstraint('"offset" >= 0', name="offset"),
)
"""`refused` says that lines of a refused part stand in the block: only its accepted parts are results.

The order of a batch's results is (place, segment, offset). Merging begins at their front, so that what it wrote
(place 0) stands in front of what was committed and is not merged yet (place 1), although its segments are younger.
"""

Index("ix_block_batch", block.c.batch_key, block.c.place, block.c.segment, block.c.offset)

part = Table(
    "part",
    metadata,
    Column("chunk", Key, ForeignKey(chunk.c.key), primary_key=True, autoincrement=False),
    Column("attempt", BigInteger, primary_key=True, autoincrement=False),
    Column("segment", Key, ForeignKey(segment.c.key), primary_key=True, autoincrement=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("bits", BigInteger, nullable=False),
    CheckConstraint("(bits = 0) = (length = 0)", name="bits_have_bytes"),
    CheckConstraint('"offset" >= 0 AND length >= 0 AND bits >= 0', name="not_negative"),
)
"""Who resolved what, for as long as the batch stays. The range is in the segment it was committed with: after a merge
it says where the lines once stood."""

Index("ix_part_segment", part.c.segment, part.c.offset)

upload = Table(
    "upload",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("workspace", String(80), nullable=False),
    Column("request_key", String(200), nullable=False),
    Column("created_us", BigInteger, nullable=False, index=True),
    Column("abandoned", Boolean, nullable=False, server_default=false()),
)

creation = Table(
    "creation",
    metadata,
    Column("key", Key, primary_key=True),
    Column("workspace", String(80), nullable=False),
    Column("credential", String(128), nullable=False),
    Column("body_digest", String(128), nullable=False),
    Column("retry_count", Integer, nullable=False),
    Column("idempotency_key", Text),
    Column("batch_key", Key, ForeignKey(batch.c.key), index=True),
    Column("absorbed", BigInteger, nullable=False, server_default="0"),
    Column("named", Boolean, nullable=False, server_default=false()),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("workspace", "idempotency_key"),
    CheckConstraint("retry_count >= 0 AND absorbed >= 0", name="not_negative"),
)
"""How a batch came to be, to know its create's retries; without a batch it notes a create that was refused.

`absorbed` is the bitmap of retry counts that found the batch again.
"""

Index("ix_creation_retry", creation.c.workspace, creation.c.credential, creation.c.body_digest)

doomed = Table("doomed", metadata, Column("key", String(200), primary_key=True))
"""Objects that may be deleted: nothing refers to them any more."""
