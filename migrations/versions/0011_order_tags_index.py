"""Backfill the times of orders that already have tags, and create the index on them."""

from collections.abc import Sequence

from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# One transaction per five hundred orders, which are locked first, as by every call that changes their tags. If a run is
# cut off, the next one continues where it stopped.
BACKFILL = """
DO $$
DECLARE
    last uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    LOOP
        WITH batch AS (
            SELECT id, create_time FROM orders
            WHERE id IN (
                SELECT DISTINCT order_id FROM order_tags
                WHERE order_id > last AND create_time IS NULL ORDER BY order_id LIMIT 500
            )
            ORDER BY id FOR NO KEY UPDATE
        ), updated AS (
            UPDATE order_tags t SET create_time = b.create_time FROM batch b WHERE t.order_id = b.id
        )
        SELECT (SELECT id FROM batch ORDER BY id DESC LIMIT 1) INTO last;
        EXIT WHEN last IS NULL;
        COMMIT;
    END LOOP;
END
$$
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    with op.get_context().autocommit_block():
        op.execute(BACKFILL)
        # A run that was killed leaves an invalid index; the next run replaces it.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_order_tags_tag_id_create_time_order_id")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_order_tags_tag_id_create_time_order_id"
            " ON order_tags (tag_id, create_time, order_id)"
        )
        # Also computes the statistics that revision 0010 defines.
        op.execute("ANALYZE orders")
        op.execute("ANALYZE order_tags")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_order_tags_tag_id_create_time_order_id")
