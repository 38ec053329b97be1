"""Store which users and orders a stored response is about, so that a purge finds it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COLUMNS = {
    "resource_id": "Id of the user or order that the response is about; a purge deletes the response with it.",
    "other_resource_id": "Id of a second user that the response is about; null if there is only one.",
}


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    with op.get_context().autocommit_block():
        for column, comment in COLUMNS.items():
            op.add_column("request_ids", sa.Column(column, sa.UUID(), nullable=True), if_not_exists=True)
            op.execute(f"COMMENT ON COLUMN request_ids.{column} IS '{comment}'")
            # A run that was killed leaves an invalid index; the next run replaces it.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_request_ids_{column}")
            op.execute(
                f"CREATE INDEX CONCURRENTLY ix_request_ids_{column} ON request_ids ({column})"
                f" WHERE {column} IS NOT NULL"
            )


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        for column in COLUMNS:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_request_ids_{column}")
            op.execute(f"ALTER TABLE request_ids DROP COLUMN IF EXISTS {column}")
