"""Validate the constraints on the credit of orders, and create its indexes, which takes longer than a short lock."""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEXES = {
    "ix_orders_held": "orders (credit_expire_time) WHERE credit_state = 'HELD'",
    "ix_orders_credit_user_id": "orders (credit_user_id) WHERE credit_user_id IS NOT NULL",
}


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.execute("ALTER TABLE orders VALIDATE CONSTRAINT fk_orders_credit_user_id_users")
    op.execute("ALTER TABLE orders VALIDATE CONSTRAINT ck_orders_credit")
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            # A run that was killed leaves an invalid index; the next run replaces it.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
