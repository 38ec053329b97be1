"""Let dumps be restored: triggers find their tables, and events of another cluster keep their place."""

from collections.abc import Sequence

from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The functions of triggers that use tables or functions of ours. The dumps of pg_dump set search_path to nothing, so
# these would not be found.
FUNCTIONS = (
    "check_order_total",
    "check_credit_balanced",
    "set_user_search",
    "set_user_search_of_profile",
    "order_tag_create_time",
    "invalidate_user_message_of_profile",
    "invalidate_order_message_of_part",
    "invalidate_order_messages_of_tag",
    "invalidate_items_messages",
    "follow_previous_event",
)
# The schema is that of the tables: with `options` in DATABASE_URL, it may be another one than `public`.
SET_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE 'ALTER FUNCTION {function}() SET search_path = ' || quote_ident(current_schema()) || ', pg_temp';
END
$$
"""

# The transaction ids of a cluster as `events.xid` has them: the same, until a dump is restored into a cluster whose ids
# are lower than those of the events. Then `commerce restore-events` replaces this function by one that adds to them.
# PostgreSQL puts the body into the statements that call it, so it costs nothing.
EVENT_XID = """
CREATE OR REPLACE FUNCTION event_xid(xid xid8) RETURNS xid8 LANGUAGE sql STABLE PARALLEL SAFE RETURN xid
"""
EPOCH = "Changes with every `commerce restore-events`, which makes the cursors of watches from before invalid."


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # Each statement can be repeated after a run is cut off.
    with op.get_context().autocommit_block():
        for function in FUNCTIONS:
            op.execute(SET_SEARCH_PATH.format(function=function))
        op.execute(EVENT_XID)
        op.execute("ALTER TABLE events ALTER COLUMN xid SET DEFAULT event_xid(pg_current_xact_id())")
        op.execute("ALTER TABLE swept_events ADD COLUMN IF NOT EXISTS epoch bigint DEFAULT 0 NOT NULL")
        op.execute(f"COMMENT ON COLUMN swept_events.epoch IS '{EPOCH}'")


def downgrade() -> None:
    """Undo the upgrade; after `commerce restore-events`, new events would not be found."""
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE swept_events DROP COLUMN IF EXISTS epoch")
        op.execute("ALTER TABLE events ALTER COLUMN xid SET DEFAULT pg_current_xact_id()")
        op.execute("DROP FUNCTION IF EXISTS event_xid(xid8)")
        for function in FUNCTIONS:
            op.execute(f"ALTER FUNCTION {function}() RESET search_path")
