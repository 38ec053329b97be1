"""The items of an order, kept beside it as the API sends them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Whoever does not know the column, such as the release before, changes items all the same.
FORGET_FUNCTION = """
CREATE FUNCTION forget_items_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orders SET items_message = NULL
    WHERE items_message IS NOT NULL AND id IN (SELECT order_id FROM changed);
    RETURN NULL;
END
$$
"""
FORGET_TRIGGER = """
CREATE TRIGGER forget_items_message_{event} AFTER {event} ON order_items
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_items_message()
"""
# An item more is seen by the total, which it changes.
FORGET_WITH_TOTAL_FUNCTION = """
CREATE FUNCTION forget_items_message_with_total() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.items_message := NULL;
    RETURN NEW;
END
$$
"""
FORGET_WITH_TOTAL_TRIGGER = """
CREATE TRIGGER forget_items_message BEFORE UPDATE OF total_amount ON orders FOR EACH ROW
WHEN (NEW.total_amount <> OLD.total_amount AND NEW.items_message IS NOT DISTINCT FROM OLD.items_message)
EXECUTE FUNCTION forget_items_message_with_total()
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    # Null for orders that are there: their items are read as before.
    op.add_column("orders", sa.Column("items_message", sa.LargeBinary(), nullable=True))
    op.execute(FORGET_FUNCTION)
    op.execute(FORGET_TRIGGER.format(event="UPDATE"))
    op.execute(FORGET_TRIGGER.format(event="DELETE"))
    op.execute(FORGET_WITH_TOTAL_FUNCTION)
    op.execute(FORGET_WITH_TOTAL_TRIGGER)


def downgrade() -> None:
    """Go back."""
    op.execute("DROP TRIGGER forget_items_message ON orders")
    op.execute("DROP TRIGGER forget_items_message_UPDATE ON order_items")
    op.execute("DROP TRIGGER forget_items_message_DELETE ON order_items")
    op.execute("DROP FUNCTION forget_items_message_with_total()")
    op.execute("DROP FUNCTION forget_items_message()")
    op.drop_column("orders", "items_message")
