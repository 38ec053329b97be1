"""A whole order, kept in its row as the API sends it, instead of its items only."""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# As for users (0014). `items_message` is for the release before; it is dropped with the one after this.
ORDERS_FUNCTION = """
CREATE OR REPLACE FUNCTION forget_order_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW IS DISTINCT FROM OLD THEN
        NEW.message := NULL;
    END IF;
    RETURN NEW;
END
$$
"""
ORDERS_TRIGGER = """
CREATE OR REPLACE TRIGGER forget_order_message BEFORE UPDATE ON orders FOR EACH ROW
WHEN (NEW.message IS NOT DISTINCT FROM OLD.message) EXECUTE FUNCTION forget_order_message()
"""
PARTS_FUNCTION = """
CREATE OR REPLACE FUNCTION forget_order_message_of_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM orders WHERE id IN (OLD.order_id, NEW.order_id) ORDER BY id FOR NO KEY UPDATE;
    UPDATE orders SET message = NULL WHERE id IN (OLD.order_id, NEW.order_id) AND message IS NOT NULL;
    RETURN NULL;
END
$$
"""
PARTS_TRIGGER = """
CREATE OR REPLACE TRIGGER forget_order_message AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
WHEN (current_setting('commerce.keeps_messages', true) IS DISTINCT FROM '1')
EXECUTE FUNCTION forget_order_message_of_part()
"""
TAGS_FUNCTION = """
CREATE OR REPLACE FUNCTION forget_order_messages_of_tag() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM orders WHERE id IN (SELECT order_id FROM order_tags WHERE tag_id = NEW.id)
    ORDER BY id FOR NO KEY UPDATE;
    UPDATE orders SET message = NULL
    WHERE id IN (SELECT order_id FROM order_tags WHERE tag_id = NEW.id) AND message IS NOT NULL;
    RETURN NULL;
END
$$
"""
# Nobody but a person by hand gives a tag another name.
TAGS_TRIGGER = """
CREATE OR REPLACE TRIGGER forget_order_messages AFTER UPDATE OF name ON tags FOR EACH ROW
EXECUTE FUNCTION forget_order_messages_of_tag()
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    # A transaction for each, which so locks one table only. A run that was cut off goes on where it stopped.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE orders ADD COLUMN IF NOT EXISTS message bytea")
        op.execute(ORDERS_FUNCTION)
        op.execute(ORDERS_TRIGGER)
        op.execute(PARTS_FUNCTION)
        op.execute(PARTS_TRIGGER.format(table="order_items"))
        op.execute(PARTS_TRIGGER.format(table="order_tags"))
        op.execute(TAGS_FUNCTION)
        op.execute(TAGS_TRIGGER)


def downgrade() -> None:
    """Go back."""
    with op.get_context().autocommit_block():
        op.execute("DROP TRIGGER IF EXISTS forget_order_messages ON tags")
        op.execute("DROP TRIGGER IF EXISTS forget_order_message ON order_tags")
        op.execute("DROP TRIGGER IF EXISTS forget_order_message ON order_items")
        op.execute("DROP TRIGGER IF EXISTS forget_order_message ON orders")
        op.execute("DROP FUNCTION IF EXISTS forget_order_messages_of_tag(), forget_order_message_of_part()")
        op.execute("DROP FUNCTION IF EXISTS forget_order_message()")
        op.execute("ALTER TABLE orders DROP COLUMN IF EXISTS message")
