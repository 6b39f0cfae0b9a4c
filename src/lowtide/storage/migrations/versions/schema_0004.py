"""Workspaces and keys, and the row of the workspace that a server without keys has."""

from time import time_ns

import sqlalchemy as sa
from alembic import op

from lowtide.domain.ids import DEFAULT_WORKSPACE

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    workspace = op.create_table(
        "workspace",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("calls_per_minute_max", sa.Integer(), nullable=True),
        sa.Column("queued_requests_max", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "calls_per_minute_max >= 0 AND queued_requests_max >= 0", name=op.f("ck_workspace_not_negative")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspace")),
        sa.UniqueConstraint("name", name=op.f("uq_workspace_name")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("workspace", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=80), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_api_key_digest")),
        sa.CheckConstraint("scopes <> ''", name=op.f("ck_api_key_scopes")),
        sa.ForeignKeyConstraint(["workspace"], ["workspace.id"], name=op.f("fk_api_key_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_key_digest")),
    )
    op.create_index(op.f("ix_api_key_workspace"), "api_key", ["workspace"], unique=False)
    op.bulk_insert(workspace, [{"id": DEFAULT_WORKSPACE, "name": "default", "created_us": time_ns() // 1000}])
