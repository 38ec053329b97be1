"""Users that are kept no longer, when somebody who does not know of that changes their profile."""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FUNCTION = """
CREATE FUNCTION forget_user_message_of_profile() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Of the two, one is null where there is none.
    UPDATE users SET message = NULL WHERE message IS NOT NULL AND id IN (OLD.user_id, NEW.user_id);
    RETURN NULL;
END
$$
"""
# Who writes the message says so in its transaction: it does that before it writes the profile, whose row needs the
# user's.
TRIGGER = """
CREATE TRIGGER forget_user_message AFTER INSERT OR UPDATE OR DELETE ON user_profiles FOR EACH ROW
WHEN (current_setting('commerce.keeps_messages', true) IS DISTINCT FROM '1')
EXECUTE FUNCTION forget_user_message_of_profile()
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Go back."""
    op.execute("DROP TRIGGER forget_user_message ON user_profiles")
    op.execute("DROP FUNCTION forget_user_message_of_profile()")
