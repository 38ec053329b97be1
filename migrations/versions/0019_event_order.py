"""Order the events of each user and each order by their commits, whichever transaction began first."""

from collections.abc import Sequence

from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# A transaction can have its id before it locks what it changes: a claim of a request id assigns one. Meanwhile, a
# younger transaction changes the same order and commits. By their transaction ids alone, the events of the two would be
# in the wrong order.
#
# A trigger and not an expression of the INSERT, for two reasons. In a function that is VOLATILE, each expression and
# each query sees what was committed until now, and not only until the statement began to wait for its lock. And it
# applies to every writer, also to the previous release.
#
# No event has a greater xid than the youngest transaction that has ended. If this one is younger, which is usual, there
# is nothing to look up.
FUNCTION = """
CREATE OR REPLACE FUNCTION follow_previous_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_snapshot_xmax(pg_current_snapshot()) > pg_current_xact_id() THEN
        NEW.xid := greatest(NEW.xid, (
            SELECT xid FROM events WHERE aggregate_id = NEW.aggregate_id AND position < NEW.position
            ORDER BY position DESC LIMIT 1
        ));
    END IF;
    RETURN NEW;
END
$$
"""
# Not for the first event of a user or an order, so that creating one costs nothing more.
TRIGGER = """
CREATE OR REPLACE TRIGGER follow_previous_event BEFORE INSERT ON events FOR EACH ROW
WHEN (NEW.type <> 'CREATED') EXECUTE FUNCTION follow_previous_event()
"""
BEFORE = (
    "The transaction that wrote the event. Readers of the whole log stop below the oldest running transaction, because "
    "positions alone become visible out of order."
)
AFTER = (
    "The transaction that wrote the event, or the xid of the previous event of its aggregate if that is greater "
    "(trigger follow_previous_event). Readers of the whole log stop below the oldest running transaction, because "
    "positions alone become visible out of order."
)


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # Each statement can be repeated after a run is cut off.
    with op.get_context().autocommit_block():
        op.execute(FUNCTION)
        op.execute(TRIGGER)
        op.execute(f"COMMENT ON COLUMN events.xid IS '{AFTER}'")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        op.execute(f"COMMENT ON COLUMN events.xid IS '{BEFORE}'")
        op.execute("DROP TRIGGER IF EXISTS follow_previous_event ON events")
        op.execute("DROP FUNCTION IF EXISTS follow_previous_event()")
