"""How many days orders are of, which PostgreSQL must know to sum them up by day in memory."""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Go from the revision before to this one."""
    # Else it takes every order for a day of its own, and sorts all of them on the disk.
    op.execute("CREATE STATISTICS st_orders_day ON ((timezone('UTC', create_time))::date) FROM orders")
    # Others can read and write meanwhile.
    op.execute("ANALYZE orders")


def downgrade() -> None:
    """Go back."""
    op.execute("DROP STATISTICS st_orders_day")
