"""Record what `commerce gc` has done, so that servers can show it in their metrics."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLE = "What each part of `commerce gc` has done so far; servers show it in their metrics."


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.create_table(
        "maintenance_runs",
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("successes", sa.BigInteger(), nullable=False, comment="Runs that succeeded."),
        sa.Column("failures", sa.BigInteger(), nullable=False, comment="Runs in which something failed."),
        sa.Column("handled", sa.BigInteger(), nullable=False, comment="What all runs have deleted or updated."),
        sa.Column("success_time", sa.TIMESTAMP(timezone=True), nullable=True, comment="When it last succeeded."),
        sa.PrimaryKeyConstraint("part", name=op.f("pk_maintenance_runs")),
        comment=TABLE,
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("maintenance_runs")
