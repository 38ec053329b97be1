"""Compare e-mail addresses alike in every locale, and let the reference of a cancelled order be used again."""

from collections.abc import Sequence

from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# Under a Turkish locale, `INFO@EXAMPLE.COM` and `info@example.com` could be two users. The ids name them, and not the
# addresses, because the message goes into logs.
REFUSE_DUPLICATES = """
DO $$
DECLARE
    found text;
BEGIN
    SELECT string_agg(ids, '; ') INTO found FROM (
        SELECT string_agg(id::text, ' and ' ORDER BY id) AS ids
        FROM users GROUP BY lower(email COLLATE "C") HAVING count(*) > 1 LIMIT 10
    ) duplicates;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = 'users have the same e-mail address in upper and lower case, which the locale'
            ' of the database allowed: change the address of all but one, or purge them, and migrate again: ' || found;
    END IF;
END
$$
"""
# In one statement, so that every conflict is reported with a name that the previous release knows, too.
REPLACE_INDEX = """
DO $$
BEGIN
    DROP INDEX uq_orders_user_id_external_ref;
    ALTER INDEX uq_orders_user_id_external_ref_new RENAME TO uq_orders_user_id_external_ref;
END
$$
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    with op.get_context().autocommit_block():
        op.execute(REFUSE_DUPLICATES)
        # A run that was cut off leaves an invalid index. The index on `lower(email)` stays: the previous release names
        # its expression in ON CONFLICT.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_users_email_folded")
        op.execute('CREATE UNIQUE INDEX CONCURRENTLY uq_users_email_folded ON users (lower(email COLLATE "C"))')
        op.execute(
            "COMMENT ON COLUMN users.email IS 'Unique regardless of the case of A to Z (index uq_users_email_folded).'"
        )
    _index_references("external_ref IS NOT NULL AND status <> 'CANCELLED'")


def downgrade() -> None:
    """Undo the upgrade; fails if the reference of a cancelled order has been used again."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_users_email_folded")
        op.execute("COMMENT ON COLUMN users.email IS 'Unique regardless of case (index uq_users_email).'")
    _index_references("external_ref IS NOT NULL")


def _index_references(condition: str) -> None:
    """Replace the unique index on the references of orders."""
    with op.get_context().autocommit_block():
        # A run that was cut off leaves the new index behind, perhaps invalid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_orders_user_id_external_ref_new")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY uq_orders_user_id_external_ref_new"
            f" ON orders (user_id, external_ref) WHERE {condition}"
        )
        op.execute(REPLACE_INDEX)
