"""What the credit of orders needs and cannot be had under one lock: a validated CHECK and an index."""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Go from the revision before to this one."""
    op.execute("ALTER TABLE orders VALIDATE CONSTRAINT ck_orders_credit")
    with op.get_context().autocommit_block():
        # A killed run leaves an index that is not valid; the next one makes it anew.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_orders_held")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_orders_held ON orders (credit_expire_time) WHERE credit_state = 'HELD'"
        )


def downgrade() -> None:
    """Go back."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_orders_held")
