"""The tables of access: workspaces, and the digests of their keys.

They stand apart from those of batches: a workspace is not asked for when a batch is read or moved, and a batch keeps its
workspace's id whatever becomes of its keys.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, String, Table, Text

from lowtide.storage.tables import metadata

workspace = Table(
    "workspace",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    Column("calls_per_minute_max", Integer),
    Column("queued_requests_max", BigInteger),
    CheckConstraint("calls_per_minute_max >= 0 AND queued_requests_max >= 0", name="not_negative"),
)
"""A limit without a value is the server's own."""

api_key = Table(
    "api_key",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("workspace", String(80), ForeignKey(workspace.c.id), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", String(80), nullable=False),
    Column("models", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    CheckConstraint("length(digest) = 64", name="digest"),
    CheckConstraint("scopes <> ''", name="scopes"),
)
"""`scopes` is a comma list, `models` a JSON array of patterns, empty for all models."""
