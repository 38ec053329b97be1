"""The checks of `commerce doctor` about versions of PostgreSQL, backups, and what a restore or an upgrade can miss."""

from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.config import ServerSettings
from service.db.operations.findings import Finding, Findings, Grade, judged
from service.db.tables import metadata, order_number_sequence

# The major versions of PostgreSQL that all tests or those of `make recoveries` run on.
SUPPORTED_VERSIONS = range(15, 19)
_MINORS = 10_000

# `archive_library` came with PostgreSQL 15. With `archive_mode` off, `archive_command` reads "(disabled)".
_ARCHIVER = text("""
SELECT current_setting('archive_mode') AS mode,
       current_setting('archive_command') = '' AND coalesce(current_setting('archive_library', true), '') = ''
           AS is_without_command,
       failed_count, last_failed_wal,
       last_failed_time IS NOT NULL AND last_failed_time > coalesce(last_archived_time, '-infinity') AS is_failing
FROM pg_stat_archiver
""")
# `extended`: the slot makes PostgreSQL store more WAL than max_wal_size; `unreserved`: it loses WAL soon.
_SLOTS = text("""
SELECT slot_name, active, wal_status,
       pg_size_pretty(pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
       )) AS size
FROM pg_replication_slots
WHERE NOT temporary AND (wal_status <> 'reserved' OR NOT active AND restart_lsn IS NOT NULL)
ORDER BY slot_name
""")
# Columns that every user may read.
_SUBSCRIPTIONS = text("""
SELECT subname FROM pg_subscription
WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY subname
""")
_HAS_KEY = text("SELECT EXISTS (SELECT FROM signing_keys)")
# Of text, so the longest number is not the greatest text: the newest order is among those with the longest.
_LAST_ORDER_NUMBER = """
(SELECT max(substr(order_number, 5)::bigint) FROM (
    (SELECT order_number FROM orders ORDER BY order_number DESC LIMIT 1)
    UNION ALL (SELECT order_number FROM orders ORDER BY create_time DESC, id DESC LIMIT 1)
) last WHERE order_number ~ '^ORD-[0-9]{1,18}$')
"""


def _stored_numbers() -> str:
    """Return a query of each sequence, and the greatest of its numbers that a table has."""
    queries = [f"SELECT CAST('{order_number_sequence.name}' AS regclass), {_LAST_ORDER_NUMBER}"]
    queries += [
        f"SELECT CAST(pg_get_serial_sequence('{table.name}', '{column.name}') AS regclass),"  # noqa: S608 - our own
        f" (SELECT max({column.name}) FROM {table.name})"
        for table in metadata.sorted_tables
        for column in table.columns
        if column.identity is not None
    ]
    return "\nUNION ALL ".join(queries)


# CASE, because without the right, PostgreSQL 17 and earlier raise an error. The service itself needs the right only for
# the sequence of order numbers.
_BEHIND = text(f"""
WITH known (sequence, stored) AS (
{_stored_numbers()}
)
SELECT CAST(sequence AS text) AS name, stored
FROM known JOIN pg_sequence ON seqrelid = sequence
WHERE stored >= CASE WHEN has_sequence_privilege(sequence, 'SELECT, USAGE')
    THEN coalesce(pg_sequence_last_value(sequence) + seqincrement, seqstart) END
ORDER BY name
""")  # noqa: S608 - our own names


def version_finding(version: int) -> Finding:
    """Return whether this version of PostgreSQL is supported, given its `server_version_num`."""
    major = version // _MINORS
    first, last = SUPPORTED_VERSIONS[0], SUPPORTED_VERSIONS[-1]
    supported = f"PostgreSQL {first} to {last} are supported"
    problem = None
    if major < first:
        problem = f"PostgreSQL {major} is too old: {supported}; docs/operations/postgresql-upgrade.md"
    elif major > last:
        problem = f"this release is not tested with PostgreSQL {major}: {supported}"
    return judged("version", problem, supported, Grade.WARN)


async def backup_findings(connection: AsyncConnection, _server: Row[Any], _settings: ServerSettings) -> Findings:
    """Check the archive of the WAL, which point-in-time recovery needs, and what replication has left over."""
    archiver = (await connection.execute(_ARCHIVER)).one()
    yield judged("archiving", _archiver_problem(archiver), "PostgreSQL archives its WAL", Grade.WARN)
    problems = [_slot_problem(slot) for slot in await connection.execute(_SLOTS)]
    problems += [_subscription_problem(name) for name in await connection.scalars(_SUBSCRIPTIONS)]
    for problem in problems:
        yield Finding(Grade.WARN, "replication", problem)
    if not problems:
        yield Finding(Grade.OK, "replication", "no slot holds back WAL, and no subscription writes here")


async def restore_findings(connection: AsyncConnection, _server: Row[Any], settings: ServerSettings) -> Findings:
    """Check what a restore or a logical upgrade leaves out if a step was forgotten; needs all rights to tables."""
    behind = (await connection.execute(_BEHIND)).all()
    for sequence in behind:
        words = f"{sequence.name} would give numbers again that are stored: run SELECT setval('{sequence.name}', "
        yield Finding(Grade.FAIL, "sequences", f"{words}{sequence.stored})")
    if not behind:
        yield Finding(Grade.OK, "sequences", "no number will be given twice")
    if settings.signing_key:
        yield Finding(Grade.OK, "signing key", "from COMMERCE_SIGNING_KEY")
    else:
        problem = None if await connection.scalar(_HAS_KEY) else MISSING_KEY
        yield judged("signing key", problem, "from the database")


MISSING_KEY = (
    "the table signing_keys is empty, and COMMERCE_SIGNING_KEY is not set: restore the row, or set the key that servers"
    " had before (docs/operations/signing-key.md)"
)


def _archiver_problem(archiver: Row[Any]) -> str | None:
    if archiver.mode == "off":
        return (
            "archive_mode is off, so a base backup cannot be restored to a later moment: see docs/operations/backup.md,"
            " unless another program stores the WAL"
        )
    if archiver.is_without_command:
        return "archive_command is empty: PostgreSQL stores all WAL until its disk is full; set it"
    if archiver.is_failing:
        return (
            f"{archiver.last_failed_wal} cannot be archived, and PostgreSQL stores all WAL until it can"
            f" ({archiver.failed_count} failures): see the log of PostgreSQL"
        )
    return None


def _slot_problem(slot: Row[Any]) -> str:
    name = slot.slot_name
    if slot.wal_status == "lost":
        return f"the replication slot {name} has lost WAL that its reader needs: drop it, and make the reader again"
    drop = f"drop the slot with SELECT pg_drop_replication_slot('{name}')"
    if slot.active:
        return f"the replication slot {name} holds back {slot.size} of WAL: its reader is too slow; or {drop}"
    return f"the replication slot {name} holds back {slot.size} of WAL, unread: start its reader, or {drop}"


def _subscription_problem(name: str) -> str:
    return (
        f"the subscription {name} writes the changes of another database here: before servers do, drop it with"
        f" DROP SUBSCRIPTION {name}"
    )
