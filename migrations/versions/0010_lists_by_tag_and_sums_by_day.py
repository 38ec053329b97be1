"""Add what lists of orders by tag and sums by day need to avoid reading all orders."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# A trigger, because the previous release does not write the column.
FUNCTION = """
CREATE FUNCTION order_tag_create_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.create_time := (SELECT create_time FROM orders WHERE id = NEW.order_id);
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.add_column("order_tags", sa.Column("create_time", sa.TIMESTAMP(timezone=True), nullable=True))
    op.execute(FUNCTION)
    op.execute(
        "CREATE TRIGGER order_tag_create_time BEFORE INSERT ON order_tags"
        " FOR EACH ROW EXECUTE FUNCTION order_tag_create_time()"
    )
    # Without these statistics PostgreSQL assumes a separate day for every order, and sorts all of them on disk.
    op.execute("CREATE STATISTICS st_orders_day ON ((timezone('UTC', create_time))::date) FROM orders")


def downgrade() -> None:
    """Undo the upgrade."""
    op.execute("DROP STATISTICS st_orders_day")
    op.execute("DROP TRIGGER order_tag_create_time ON order_tags")
    op.execute("DROP FUNCTION order_tag_create_time")
    op.drop_column("order_tags", "create_time")
