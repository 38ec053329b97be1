"""The words of the users that were there before, and the index over all."""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# A transaction for each thousand users, locked in the order of their ids as every call does. A run that was cut off
# goes on where it stopped.
BACKFILL = """
DO $$
DECLARE
    last uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    LOOP
        WITH batch AS (
            SELECT id FROM users WHERE id > last AND search IS NULL ORDER BY id LIMIT 1000 FOR NO KEY UPDATE
        ), updated AS (
            UPDATE users u SET search = user_search(u.username, u.full_name, p.bio)
            FROM batch b LEFT JOIN user_profiles p ON p.user_id = b.id
            WHERE u.id = b.id
        )
        SELECT (SELECT id FROM batch ORDER BY id DESC LIMIT 1) INTO last;
        EXIT WHEN last IS NULL;
        COMMIT;
    END LOOP;
END
$$
"""


def upgrade() -> None:
    """Go from the revision before to this one."""
    with op.get_context().autocommit_block():
        op.execute(BACKFILL)
        # A killed run leaves an index that is not valid; the next one makes it anew.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_search")
        op.execute("CREATE INDEX CONCURRENTLY ix_users_search ON users USING gin (search)")


def downgrade() -> None:
    """Go back."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_search")
