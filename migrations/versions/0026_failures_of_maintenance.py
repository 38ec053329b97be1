"""Record when a part of the maintenance last failed, so that servers can tell whether its last run succeeded."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OLD_TABLE = "What each part of `commerce gc` has done so far; servers show it in their metrics."
TABLE = "What the parts of `commerce gc` and the check of the ledger have done; servers show it in their metrics."


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.add_column(
        "maintenance_runs",
        sa.Column("failure_time", sa.TIMESTAMP(timezone=True), nullable=True, comment="When it last failed."),
    )
    op.create_table_comment("maintenance_runs", TABLE, existing_comment=OLD_TABLE)


def downgrade() -> None:
    """Undo the upgrade."""
    op.create_table_comment("maintenance_runs", OLD_TABLE, existing_comment=TABLE)
    op.drop_column("maintenance_runs", "failure_time")
