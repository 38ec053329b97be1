"""Count attempts to sign in without success, so that they can be limited over all servers."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SLOT = (
    "Digest, with a secret key, of the login and of who tries to sign in. At most 2^22, so this table does not grow"
    " with the logins that are tried."
)
TABLE = (
    "Attempts to sign in without success, which VerifyPassword limits. A success deletes the row; `commerce gc` deletes"
    " rows after their expire_time."
)


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.create_table(
        "sign_in_attempts",
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False, comment=SLOT),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="Attempts in a row without success."),
        sa.Column(
            "retry_time",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            comment="Before this time, attempts are refused.",
        ),
        sa.Column(
            "expire_time",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            comment="After this time, these attempts no longer count.",
        ),
        sa.CheckConstraint("slot BETWEEN 0 AND 4194303", name=op.f("ck_sign_in_attempts_slot")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_sign_in_attempts_attempts")),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_sign_in_attempts")),
        comment=TABLE,
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("sign_in_attempts")
