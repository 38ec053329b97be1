"""Backfill the words of existing users, and create the index on them."""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# One transaction per thousand users, which are locked in the order of their ids, as in every call. If a run is cut off,
# the next one continues where it stopped.
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
    """Upgrade the schema from the previous revision to this one."""
    with op.get_context().autocommit_block():
        op.execute(BACKFILL)
        # A run that was killed leaves an invalid index; the next run replaces it.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_search")
        op.execute("CREATE INDEX CONCURRENTLY ix_users_search ON users USING gin (search)")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_users_search")
