"""Add the encoded message of a user with its profile, stored in the row of the user."""

from collections.abc import Sequence

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# For writers that change a user and do not know of the message: the previous release, or a person with psql.
USERS_FUNCTION = """
CREATE OR REPLACE FUNCTION forget_user_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The words for searches are in no message. Triggers of user_profiles write them into a row that is kept already.
    OLD.search := NEW.search;
    IF NEW IS DISTINCT FROM OLD THEN
        NEW.message := NULL;
    END IF;
    RETURN NEW;
END
$$
"""
# Does not fire if the writer also writes a new message. No columns are named, because PostgreSQL refuses to change the
# type of a column that a trigger names.
USERS_TRIGGER = """
CREATE OR REPLACE TRIGGER forget_user_message BEFORE UPDATE ON users FOR EACH ROW
WHEN (NEW.message IS NOT DISTINCT FROM OLD.message) EXECUTE FUNCTION forget_user_message()
"""
PROFILES_FUNCTION = """
CREATE OR REPLACE FUNCTION forget_user_message_of_profile() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Also where there is no message: a writer that has read the old profile may be about to keep it. On INSERT, OLD is
    -- null, and on DELETE, NEW.
    PERFORM FROM users WHERE id IN (OLD.user_id, NEW.user_id) ORDER BY id FOR NO KEY UPDATE;
    UPDATE users SET message = NULL WHERE id IN (OLD.user_id, NEW.user_id) AND message IS NOT NULL;
    RETURN NULL;
END
$$
"""
# A writer of encoded messages declares that with this setting: it writes the user with its message first, and then the
# profile, which refers to the user.
PROFILES_TRIGGER = """
CREATE OR REPLACE TRIGGER forget_user_message AFTER INSERT OR UPDATE OR DELETE ON user_profiles FOR EACH ROW
WHEN (current_setting('commerce.keeps_messages', true) IS DISTINCT FROM '1')
EXECUTE FUNCTION forget_user_message_of_profile()
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # One transaction per statement, so that each locks one table only. Each can be repeated after a run is cut off.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE users ADD COLUMN IF NOT EXISTS message bytea")
        op.execute(USERS_FUNCTION)
        op.execute(USERS_TRIGGER)
        op.execute(PROFILES_FUNCTION)
        op.execute(PROFILES_TRIGGER)
        # Finds the users that have no encoded message yet.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_not_kept")
        op.execute("CREATE INDEX CONCURRENTLY ix_users_not_kept ON users (id) WHERE message IS NULL")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_not_kept")
        op.execute("DROP TRIGGER IF EXISTS forget_user_message ON user_profiles")
        op.execute("DROP TRIGGER IF EXISTS forget_user_message ON users")
        op.execute("DROP FUNCTION IF EXISTS forget_user_message_of_profile(), forget_user_message()")
        op.execute("ALTER TABLE users DROP COLUMN IF EXISTS message")
