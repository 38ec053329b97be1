"""A user, kept in its row as the API sends it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Whoever changes a user and does not know of the message: the release before, or a person by hand.
FUNCTION = """
CREATE FUNCTION forget_user_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A message has no words for searches, and those of a new profile are written when it is there already.
    OLD.search := NEW.search;
    IF NEW IS DISTINCT FROM OLD THEN
        NEW.message := NULL;
    END IF;
    RETURN NEW;
END
$$
"""
# Not where the writer brings a message of its own. No columns are named: the type of one that is could not be changed.
TRIGGER = """
CREATE TRIGGER forget_user_message BEFORE UPDATE ON users FOR EACH ROW
WHEN (NEW.message IS NOT DISTINCT FROM OLD.message) EXECUTE FUNCTION forget_user_message()
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    op.add_column("users", sa.Column("message", sa.LargeBinary(), nullable=True))
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Go back."""
    op.execute("DROP TRIGGER forget_user_message ON users")
    op.execute("DROP FUNCTION forget_user_message()")
    op.drop_column("users", "message")
