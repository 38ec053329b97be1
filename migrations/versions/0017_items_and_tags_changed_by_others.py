"""Orders that are kept no longer, when somebody who does not know of that changes their items or their tags."""

from collections.abc import Sequence

from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

PARTS_FUNCTION = """
CREATE OR REPLACE FUNCTION forget_order_message_of_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Of the two, one is null where there is none.
    UPDATE orders SET message = NULL WHERE message IS NOT NULL AND id IN (OLD.order_id, NEW.order_id);
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
    UPDATE orders SET message = NULL
    WHERE message IS NOT NULL AND id IN (SELECT order_id FROM order_tags WHERE tag_id = NEW.id);
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
    # A transaction for each, which so locks one table only. A run that was cut off makes them anew.
    with op.get_context().autocommit_block():
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
        op.execute("DROP FUNCTION IF EXISTS forget_order_messages_of_tag(), forget_order_message_of_part()")
