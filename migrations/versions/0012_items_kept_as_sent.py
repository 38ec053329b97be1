"""The items of an order, kept beside it as the API sends them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Whoever changes these by hand may have added an item, or changes what each says of its price.
FUNCTION = """
CREATE FUNCTION forget_items_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.items_message := NULL;
    RETURN NEW;
END
$$
"""
# Not where the writer brings a message of its own.
TRIGGER = """
CREATE TRIGGER forget_items_message BEFORE UPDATE OF total_amount, currency ON orders FOR EACH ROW
WHEN ((NEW.total_amount, NEW.currency) IS DISTINCT FROM (OLD.total_amount, OLD.currency)
    AND NEW.items_message IS NOT DISTINCT FROM OLD.items_message)
EXECUTE FUNCTION forget_items_message()
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    # Null for orders that are there: their items are read as before.
    op.add_column("orders", sa.Column("items_message", sa.LargeBinary(), nullable=True))
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Go back."""
    op.execute("DROP TRIGGER forget_items_message ON orders")
    op.execute("DROP FUNCTION forget_items_message()")
    op.drop_column("orders", "items_message")
