"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "batch",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("workspace", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("cancel_initiated_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("archived_us", sa.BigInteger(), nullable=True),
        sa.Column("deleted_us", sa.BigInteger(), nullable=True),
        sa.Column("purge", sa.Integer(), server_default="0", nullable=False),
        sa.Column("request_key", sa.String(length=200), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("open_chunks", sa.Integer(), nullable=False),
        sa.Column("succeeded", sa.Integer(), server_default="0", nullable=False),
        sa.Column("errored", sa.Integer(), server_default="0", nullable=False),
        sa.Column("canceled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("expired", sa.Integer(), server_default="0", nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_creation_input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_read_input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("(state = 'ended') = (ended_us IS NOT NULL)", name=op.f("ck_batch_ended_has_time")),
        sa.CheckConstraint(
            "state <> 'canceling' OR cancel_initiated_us IS NOT NULL", name=op.f("ck_batch_canceling_has_time")
        ),
        sa.CheckConstraint("state <> 'ended' OR open_chunks = 0", name=op.f("ck_batch_ended_has_no_open_chunk")),
        sa.CheckConstraint(
            "state <> 'ended' OR succeeded + errored + canceled + expired = total",
            name=op.f("ck_batch_ended_counts_add_up"),
        ),
        sa.CheckConstraint("state IN ('in_progress', 'canceling', 'ended')", name=op.f("ck_batch_state")),
        sa.CheckConstraint(
            "ended_us IS NOT NULL OR (archived_us IS NULL AND deleted_us IS NULL)",
            name=op.f("ck_batch_leaves_after_end"),
        ),
        sa.CheckConstraint(
            "purge = 0 OR archived_us IS NOT NULL OR deleted_us IS NOT NULL", name=op.f("ck_batch_purged_after_leaving")
        ),
        sa.CheckConstraint("purge IN (0, 1, 2)", name=op.f("ck_batch_purge")),
        sa.CheckConstraint(
            "total >= 0 AND open_chunks >= 0 AND succeeded >= 0 AND errored >= 0 AND canceled >= 0 AND expired >= 0",
            name=op.f("ck_batch_not_negative"),
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_batch")),
        sa.UniqueConstraint("id", name=op.f("uq_batch_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_batch_archived",
        "batch",
        ["archived_us"],
        unique=False,
        sqlite_where=sa.text("archived_us IS NOT NULL AND purge != 2"),
        postgresql_where=sa.text("archived_us IS NOT NULL AND purge != 2"),
    )
    op.create_index(
        "ix_batch_canceling",
        "batch",
        ["key"],
        unique=False,
        sqlite_where=sa.text("state = 'canceling'"),
        postgresql_where=sa.text("state = 'canceling'"),
    )
    op.create_index(
        "ix_batch_deleted",
        "batch",
        ["deleted_us"],
        unique=False,
        sqlite_where=sa.text("deleted_us IS NOT NULL"),
        postgresql_where=sa.text("deleted_us IS NOT NULL"),
    )
    op.create_index(
        "ix_batch_expiring",
        "batch",
        ["expires_us"],
        unique=False,
        sqlite_where=sa.text("state != 'ended'"),
        postgresql_where=sa.text("state != 'ended'"),
    )
    op.create_index(
        "ix_batch_in_progress",
        "batch",
        ["key"],
        unique=False,
        sqlite_where=sa.text("state = 'in_progress'"),
        postgresql_where=sa.text("state = 'in_progress'"),
    )
    op.create_index("ix_batch_listed", "batch", ["workspace", "key"], unique=False)
    op.create_index(
        "ix_batch_retiring",
        "batch",
        ["created_us"],
        unique=False,
        sqlite_where=sa.text("state = 'ended' AND archived_us IS NULL"),
        postgresql_where=sa.text("state = 'ended' AND archived_us IS NULL"),
    )
    op.create_index(
        "ix_batch_running",
        "batch",
        ["workspace", "state", "total"],
        unique=False,
        sqlite_where=sa.text("state != 'ended'"),
        postgresql_where=sa.text("state != 'ended'"),
    )
    op.create_table(
        "doomed",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_doomed")),
    )
    op.create_table(
        "segment",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("session", sa.String(length=40), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.String(length=200), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.Text(), nullable=False),
        sa.CheckConstraint("length >= 0", name=op.f("ck_segment_length")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_segment")),
        sa.UniqueConstraint("object_key", name=op.f("uq_segment_object_key")),
        sa.UniqueConstraint("session", "number", name=op.f("uq_segment_session_number")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "session",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("boot", sa.String(length=40), nullable=False),
        sa.Column("lease_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("lease_us > 0", name=op.f("ck_session_lease")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
    )
    op.create_index(op.f("ix_session_worker"), "session", ["worker"], unique=False)
    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("workspace", sa.String(length=80), nullable=False),
        sa.Column("request_key", sa.String(length=200), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("abandoned", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
    )
    op.create_index(op.f("ix_upload_created_us"), "upload", ["created_us"], unique=False)
    op.create_table(
        "block",
        sa.Column("segment", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("batch_key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.CheckConstraint('"offset" >= 0', name=op.f("ck_block_offset")),
        sa.CheckConstraint("length > 0", name=op.f("ck_block_length")),
        sa.ForeignKeyConstraint(["batch_key"], ["batch.key"], name=op.f("fk_block_batch_key")),
        sa.ForeignKeyConstraint(["segment"], ["segment.key"], name=op.f("fk_block_segment")),
        sa.PrimaryKeyConstraint("segment", "offset", name=op.f("pk_block")),
    )
    op.create_index("ix_block_batch", "block", ["batch_key", "segment", "offset"], unique=False)
    op.create_table(
        "chunk",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch_key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("group", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("head_length", sa.BigInteger(), nullable=False),
        sa.Column("head_checksum", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="open", nullable=False),
        sa.Column("session", sa.String(length=40), nullable=True),
        sa.Column("attempt", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("progressed", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("resolved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("condemned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("succeeded", sa.Integer(), server_default="0", nullable=False),
        sa.Column("errored", sa.Integer(), server_default="0", nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_creation_input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_read_input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("closing", sa.String(length=16), nullable=True),
        sa.Column("closing_error", sa.Text(), nullable=True),
        sa.Column("losses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", sa.String(length=64), server_default="", nullable=False),
        sa.CheckConstraint(
            "(closing_error IS NOT NULL) = (closing IS NOT NULL AND closing = 'errored')",
            name=op.f("ck_chunk_errored_has_error"),
        ),
        sa.CheckConstraint(
            "(state = 'closed') = (succeeded + errored = size OR closing IS NOT NULL)",
            name=op.f("ck_chunk_closed_has_no_outstanding"),
        ),
        sa.CheckConstraint("(state = 'leased') = (session IS NOT NULL)", name=op.f("ck_chunk_leased_has_session")),
        sa.CheckConstraint("closing IN ('errored', 'canceled', 'expired')", name=op.f("ck_chunk_closing")),
        sa.CheckConstraint("state IN ('open', 'leased', 'closed')", name=op.f("ck_chunk_state")),
        sa.CheckConstraint(
            "condemned >= 0 AND condemned < (CAST(1 AS BIGINT) << size)", name=op.f("ck_chunk_condemned")
        ),
        sa.CheckConstraint("resolved >= 0 AND resolved < (CAST(1 AS BIGINT) << size)", name=op.f("ck_chunk_resolved")),
        sa.CheckConstraint("size BETWEEN 1 AND 32", name=op.f("ck_chunk_size")),
        sa.CheckConstraint(
            "succeeded + errored = ((((((((resolved - ((resolved >> 1) & 1431655765)) & 858993459) + (((resolved - ((resolved >> 1) & 1431655765)) >> 2) & 858993459)) + ((((resolved - ((resolved >> 1) & 1431655765)) & 858993459) + (((resolved - ((resolved >> 1) & 1431655765)) >> 2) & 858993459)) >> 4)) & 252645135) * 16843009) >> 24) & 255)",
            name=op.f("ck_chunk_counts_add_up"),
        ),
        sa.CheckConstraint(
            "succeeded >= 0 AND errored >= 0 AND losses >= 0 AND attempt >= 0 AND input_tokens >= 0 AND output_tokens >= 0 AND cache_creation_input_tokens >= 0 AND cache_read_input_tokens >= 0",
            name=op.f("ck_chunk_not_negative"),
        ),
        sa.ForeignKeyConstraint(["batch_key"], ["batch.key"], name=op.f("fk_chunk_batch_key")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_chunk")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunk_batch", "chunk", ["batch_key", "key"], unique=False)
    op.create_index(
        "ix_chunk_closing",
        "chunk",
        ["batch_key", "key"],
        unique=False,
        sqlite_where=sa.text("closing IS NOT NULL"),
        postgresql_where=sa.text("closing IS NOT NULL"),
    )
    op.create_index(
        "ix_chunk_live",
        "chunk",
        ["batch_key", "state", "key", "losses"],
        unique=False,
        sqlite_where=sa.text("state != 'closed'"),
        postgresql_where=sa.text("state != 'closed'"),
    )
    op.create_index(
        "ix_chunk_session",
        "chunk",
        ["session"],
        unique=False,
        sqlite_where=sa.text("session IS NOT NULL"),
        postgresql_where=sa.text("session IS NOT NULL"),
    )
    op.create_table(
        "creation",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("workspace", sa.String(length=80), nullable=False),
        sa.Column("credential", sa.String(length=128), nullable=False),
        sa.Column("body_digest", sa.String(length=128), nullable=False),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("batch_key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("absorbed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("named", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("retry_count >= 0 AND absorbed >= 0", name=op.f("ck_creation_not_negative")),
        sa.ForeignKeyConstraint(["batch_key"], ["batch.key"], name=op.f("fk_creation_batch_key")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_creation")),
        sa.UniqueConstraint("workspace", "idempotency_key", name=op.f("uq_creation_workspace_idempotency_key")),
    )
    op.create_index(op.f("ix_creation_batch_key"), "creation", ["batch_key"], unique=False)
    op.create_index("ix_creation_retry", "creation", ["workspace", "credential", "body_digest"], unique=False)
    op.create_table(
        "part",
        sa.Column("chunk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("bits", sa.BigInteger(), nullable=False),
        sa.CheckConstraint('"offset" >= 0 AND length >= 0 AND bits >= 0', name=op.f("ck_part_not_negative")),
        sa.CheckConstraint("(bits = 0) = (length = 0)", name=op.f("ck_part_bits_have_bytes")),
        sa.ForeignKeyConstraint(["chunk"], ["chunk.key"], name=op.f("fk_part_chunk")),
        sa.ForeignKeyConstraint(["segment"], ["segment.key"], name=op.f("fk_part_segment")),
        sa.PrimaryKeyConstraint("chunk", "attempt", "segment", name=op.f("pk_part")),
    )
    op.create_index("ix_part_segment", "part", ["segment", "offset"], unique=False)
