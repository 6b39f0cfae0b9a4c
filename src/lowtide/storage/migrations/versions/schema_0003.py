"""Work under way: what workers report, counters that outlive them, and when segments were committed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns alone: a table that is made anew would forget which keys it has given away."""
    op.add_column("session", sa.Column("since_us", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("session", sa.Column("report_number", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("session", sa.Column("report", sa.Text(), server_default="", nullable=False))
    op.add_column("segment", sa.Column("committed_us", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "counter",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("labels", sa.String(length=200), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("value >= 0", name=op.f("ck_counter_not_negative")),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_counter")),
    )
