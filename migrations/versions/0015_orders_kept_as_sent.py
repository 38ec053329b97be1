"""Add the encoded message of a whole order, stored in its row, instead of that of its items only."""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# As for users (revision 0014). The previous release still uses `items_message`; the next one drops the column.
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
# The service never renames a tag, but a person with psql may.
TAGS_TRIGGER = """
CREATE OR REPLACE TRIGGER forget_order_messages AFTER UPDATE OF name ON tags FOR EACH ROW
EXECUTE FUNCTION forget_order_messages_of_tag()
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # One transaction per statement, so that each locks one table only. Each can be repeated after a run is cut off.
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
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        op.execute("DROP TRIGGER IF EXISTS forget_order_messages ON tags")
        op.execute("DROP TRIGGER IF EXISTS forget_order_message ON order_tags")
        op.execute("DROP TRIGGER IF EXISTS forget_order_message ON order_items")
        op.execute("DROP TRIGGER IF EXISTS forget_order_message ON orders")
        op.execute("DROP FUNCTION IF EXISTS forget_order_messages_of_tag(), forget_order_message_of_part()")
        op.execute("DROP FUNCTION IF EXISTS forget_order_message()")
        op.execute("ALTER TABLE orders DROP COLUMN IF EXISTS message")
