"""Add the encoded items of an order, stored in its row."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# A manual change of these columns may come with a new item, or changes the currency of the prices in the message.
FUNCTION = """
CREATE FUNCTION forget_items_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.items_message := NULL;
    RETURN NEW;
END
$$
"""
# Does not fire if the writer also writes a new message.
TRIGGER = """
CREATE TRIGGER forget_items_message BEFORE UPDATE OF total_amount, currency ON orders FOR EACH ROW
WHEN ((NEW.total_amount, NEW.currency) IS DISTINCT FROM (OLD.total_amount, OLD.currency)
    AND NEW.items_message IS NOT DISTINCT FROM OLD.items_message)
EXECUTE FUNCTION forget_items_message()
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # Null for existing orders: their items are read from their rows as before.
    op.add_column("orders", sa.Column("items_message", sa.LargeBinary(), nullable=True))
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Undo the upgrade."""
    op.execute("DROP TRIGGER forget_items_message ON orders")
    op.execute("DROP FUNCTION forget_items_message()")
    op.drop_column("orders", "items_message")
