"""Invalidate the encoded items of an order when a writer that does not know of them changes the items."""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Such a writer is the previous release.
FUNCTION = """
CREATE FUNCTION forget_items_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orders SET items_message = NULL
    WHERE items_message IS NOT NULL AND id IN (SELECT order_id FROM changed);
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER forget_items_messages_at_{event} AFTER {event} ON order_items
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_items_messages()
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.execute(FUNCTION)
    op.execute(TRIGGER.format(event="update"))
    op.execute(TRIGGER.format(event="delete"))


def downgrade() -> None:
    """Undo the upgrade."""
    op.execute("DROP TRIGGER forget_items_messages_at_update ON order_items")
    op.execute("DROP TRIGGER forget_items_messages_at_delete ON order_items")
    op.execute("DROP FUNCTION forget_items_messages()")
