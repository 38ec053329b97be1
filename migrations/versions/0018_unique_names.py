"""Let the reference of a cancelled order be used again."""

from collections.abc import Sequence

from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# In one statement, so that every conflict is reported with a name that the previous release knows, too.
REPLACE_INDEX = """
DO $$
BEGIN
    DROP INDEX uq_orders_user_id_external_ref;
    ALTER INDEX uq_orders_user_id_external_ref_new RENAME TO uq_orders_user_id_external_ref;
END
$$
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    _index_references("external_ref IS NOT NULL AND status <> 'CANCELLED'")


def downgrade() -> None:
    """Undo the upgrade; fails if the reference of a cancelled order has been used again."""
    _index_references("external_ref IS NOT NULL")


def _index_references(condition: str) -> None:
    """Replace the unique index on the references of orders."""
    with op.get_context().autocommit_block():
        # A run that was cut off leaves the new index behind, perhaps invalid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_orders_user_id_external_ref_new")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY uq_orders_user_id_external_ref_new"
            f" ON orders (user_id, external_ref) WHERE {condition}"
        )
        op.execute(REPLACE_INDEX)
