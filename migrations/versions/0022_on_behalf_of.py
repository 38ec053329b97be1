"""Record the user for whom a caller acted, in events and ledger entries."""

from collections.abc import Sequence

from alembic import op

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("events", "credit_entries")
COMMENT = "The user for whom the actor acted; null if it acted for itself."


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # Each statement can be repeated after a run is cut off, and none reads the table. Not a foreign key, because an
    # event outlives a purged user.
    with op.get_context().autocommit_block():
        for table in TABLES:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS on_behalf_of uuid")
            op.execute(f"COMMENT ON COLUMN {table}.on_behalf_of IS '{COMMENT}'")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        for table in TABLES:
            op.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS on_behalf_of")
