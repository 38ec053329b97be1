"""Events that were restored from a dump, whose transactions another cluster has counted."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.errors import translated_errors
from service.db.operations import migrate

# The newest event must be older than the next transaction. Only an event that another cluster has written is not.
ARE_AHEAD = """
greatest((SELECT xid FROM events ORDER BY xid DESC, position DESC LIMIT 1), (SELECT xid FROM swept_events))
    >= event_xid(pg_snapshot_xmax(pg_current_snapshot()))
"""
# New events must follow all that are stored, and all that a relay has published. A lock instead of a snapshot, so that
# no event is written meanwhile.
#
# The epoch is the time: no other restore of the same dump has it.
RESTORE = text("""
DO $$
DECLARE
    last numeric;
    added numeric;
BEGIN
    LOCK TABLE events, swept_events, relay_cursors IN EXCLUSIVE MODE;
    SELECT max(xid::text::numeric) INTO last FROM (
        (SELECT xid FROM events ORDER BY xid DESC, position DESC LIMIT 1)
        UNION ALL SELECT xid FROM swept_events
        UNION ALL SELECT xid FROM relay_cursors
    ) known;
    added := greatest(0, last + 1 - pg_current_xact_id()::text::numeric);
    EXECUTE 'CREATE OR REPLACE FUNCTION event_xid(xid xid8) RETURNS xid8 LANGUAGE sql STABLE PARALLEL SAFE RETURN '
        || CASE added WHEN 0 THEN 'xid' ELSE '(xid::text::numeric + ' || added || ')::text::xid8' END;
    UPDATE swept_events SET epoch = greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint);
END
$$
""")


async def restore_events(engine: AsyncEngine) -> None:
    """Let new events follow the stored ones, and make the cursors of all watches invalid.

    Raises:
        MigrationError: the schema is older than this build.
        StoreError: the database failed.
    """
    with translated_errors():
        async with engine.begin() as connection:
            if problem := migrate.schema_problem(await migrate.current(connection)):
                raise migrate.MigrationError(problem)
            await connection.execute(RESTORE)
