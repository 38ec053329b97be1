"""Add what watches and relays need: the user and status of order events, the deletion mark, and relay cursors."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import UserDefinedType

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


class Xid8(UserDefinedType[int]):
    """A 64-bit transaction id of PostgreSQL."""

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in DDL."""
        return "xid8"


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.create_table(
        "swept_events",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("xid", Xid8(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_swept_events_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_swept_events")),
    )
    op.execute("INSERT INTO swept_events (id, xid, position) VALUES (1, '0', 0)")
    op.create_table(
        "relay_cursors",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("xid", Xid8(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_relay_cursors")),
    )
    # No index: readers scan the events in their order, and filter them.
    op.add_column("events", sa.Column("user_id", sa.UUID(), nullable=True))
    op.add_column("events", sa.Column("status", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_column("events", "status")
    op.drop_column("events", "user_id")
    op.drop_table("relay_cursors")
    op.drop_table("swept_events")
