"""Merged segments: the order of blocks outlives a merge, and segments that no block is left in are found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns alone: a table that is made anew would forget which keys it has given away."""
    op.add_column("batch", sa.Column("generation", sa.Integer(), server_default="0", nullable=False))
    op.add_column("batch", sa.Column("merged", sa.Boolean(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "ix_batch_merging",
        "batch",
        ["key"],
        unique=False,
        sqlite_where=sa.text("state = 'ended' AND merged = 0"),
        postgresql_where=sa.text("state = 'ended' AND merged = false"),
    )
    op.add_column("segment", sa.Column("emptied_us", sa.BigInteger(), nullable=True))
    op.add_column("segment", sa.Column("gone", sa.Boolean(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "ix_segment_emptied",
        "segment",
        ["emptied_us"],
        unique=False,
        sqlite_where=sa.text("emptied_us IS NOT NULL"),
        postgresql_where=sa.text("emptied_us IS NOT NULL"),
    )
    op.add_column("block", sa.Column("place", sa.Integer(), server_default="1", nullable=False))
    op.drop_index("ix_block_batch", "block")
    op.create_index("ix_block_batch", "block", ["batch_key", "place", "segment", "offset"], unique=False)
