"""A whole order, kept in its row as the API sends it, instead of its items only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# As for users (0014). `items_message` is for the release before; it is dropped with the one after this.
FUNCTION = """
CREATE FUNCTION forget_order_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW IS DISTINCT FROM OLD THEN
        NEW.message := NULL;
    END IF;
    RETURN NEW;
END
$$
"""
TRIGGER = """
CREATE TRIGGER forget_order_message BEFORE UPDATE ON orders FOR EACH ROW
WHEN (NEW.message IS NOT DISTINCT FROM OLD.message) EXECUTE FUNCTION forget_order_message()
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    op.add_column("orders", sa.Column("message", sa.LargeBinary(), nullable=True))
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Go back."""
    op.execute("DROP TRIGGER forget_order_message ON orders")
    op.execute("DROP FUNCTION forget_order_message()")
    op.drop_column("orders", "message")
