"""Check everything about the database that the service needs, each by itself, for `commerce doctor`."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.application.ports.errors import StoreError
from service.config import ServerSettings
from service.db.connections.engine import create_engine, for_single_statements, lost_connections
from service.db.connections.replica import Replica
from service.db.errors import translated_errors
from service.db.operations import migrate
from service.db.operations.findings import Finding, Findings, Grade, judged
from service.db.operations.readiness import (
    database_state,
    describe_missing_right,
    describe_store_error,
    event_problem,
    limit_problem,
    rights_problem,
    write_problem,
)
from service.db.operations.recoverability import backup_findings, restore_findings, version_finding

# How long the database may take to answer a question.
_ANSWER_SECONDS = 10.0
# Tokens are accepted at most this long after their time.
_MAX_SKEW_SECONDS = 60.0
_SKEW_SECONDS = 1.0
# Of a server, apart from its pool: for its health check, for the event feed, and to measure the lag of a replica.
_PROBE_CONNECTIONS, _FEED_CONNECTIONS, _REPLICA_PROBES = 1, 1, 1

_SERVER = text("""
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       current_user AS role, inet_client_addr() IS NOT NULL AS is_tcp,
       inet_client_addr() << '127.0.0.0/8' OR inet_client_addr() = '::1' AS is_loopback,
       (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS is_encrypted,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit
""")
_CLOCK = text("SELECT extract(epoch FROM clock_timestamp())::float8")
# -1 means that there is no limit.
_LIMITS = text("""
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) AS max_connections,
       r.rolconnlimit AS of_role, d.datconnlimit AS of_database
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
""")


async def diagnose(settings: ServerSettings) -> list[Finding]:
    """Return a finding for each check. If the database cannot be used at all, there are no others."""
    engine = create_engine(settings, pool_size=1, answer_seconds=_ANSWER_SECONDS)
    address = lost_connections(engine).address
    findings: list[Finding] = []
    try:
        with translated_errors():
            async with for_single_statements(engine).connect() as connection:
                server = (await connection.execute(_SERVER)).one()
                words = f"PostgreSQL {server.version} at {address}, as {server.role}"
                findings.append(Finding(Grade.OK, "database", words))
                findings.append(version_finding(server.version_number))
                for check in _CHECKS:
                    findings += [finding async for finding in check(connection, server, settings)]
    except StoreError as error:
        return [*findings, Finding(Grade.FAIL, "database", describe_store_error(error, address))]
    except Exception as error:
        if lacks := describe_missing_right(error):
            return [*findings, Finding(Grade.FAIL, "rights", lacks)]
        raise
    finally:
        await engine.dispose()
    return [*findings, *([await _replica(settings)] if settings.read_database_url else [])]


async def _state(connection: AsyncConnection, _server: Row[Any], settings: ServerSettings) -> Findings:
    state = await database_state(connection)
    yield judged("writes", write_problem(state), "the database accepts writes")
    yield judged("encoding", migrate.encoding_problem(state.encoding), state.encoding)
    fine = f"statements end after {settings.db_statement_timeout:g} s"
    yield judged("time limit", limit_problem(state), fine)


async def _schema(connection: AsyncConnection, server: Row[Any], settings: ServerSettings) -> Findings:
    revision = await migrate.current(connection)
    problem = migrate.schema_problem(revision)
    yield judged("schema", problem, f"revision {revision}")
    if problem:
        return
    lacks = await rights_problem(connection)
    yield judged("rights", lacks, "the user in DATABASE_URL has all that are needed")
    yield judged("events", await event_problem(connection), "new events follow the stored ones")
    if not lacks:
        async for finding in restore_findings(connection, server, settings):
            yield finding


async def _durability(_connection: AsyncConnection, server: Row[Any], _settings: ServerSettings) -> Findings:
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if getattr(server, name) == "off"]
    if off:
        words = f"{' and '.join(off)} is off: PostgreSQL can lose acknowledged writes when it crashes; set it to on"
        yield Finding(Grade.WARN, "durability", words)
    else:
        yield Finding(Grade.OK, "durability", "PostgreSQL writes each commit to its disk before it answers")


async def _encryption(_connection: AsyncConnection, server: Row[Any], _settings: ServerSettings) -> Findings:
    if server.is_encrypted:
        yield Finding(Grade.OK, "encryption", "the connection to the database is encrypted")
    elif server.is_tcp and not server.is_loopback:
        words = "the connection to the database is not encrypted: add sslmode=verify-full to DATABASE_URL"
        yield Finding(Grade.WARN, "encryption", words)
    else:
        yield Finding(Grade.OK, "encryption", "the connection to the database does not leave this machine")


async def _clock(connection: AsyncConnection, _server: Row[Any], _settings: ServerSettings) -> Findings:
    # The first answer would also take the time to prepare the statement.
    await connection.scalar(_CLOCK)
    before = time.time()
    there = await connection.scalar(_CLOCK)
    after = time.time()
    # At least so much: the answer was made some time in between.
    skew = max(0.0, before - there, there - after)
    words = f"this machine and PostgreSQL differ by {skew:.1f} s"
    if skew > _SKEW_SECONDS:
        # Holds, retention and page tokens use this clock, others PostgreSQL's.
        grade = Grade.FAIL if skew > _MAX_SKEW_SECONDS else Grade.WARN
        yield Finding(grade, "clock", f"{words}: let NTP set both clocks")
    else:
        yield Finding(Grade.OK, "clock", words)


async def _connections(connection: AsyncConnection, _server: Row[Any], settings: ServerSettings) -> Findings:
    limits = (await connection.execute(_LIMITS)).one()
    allowed = min(limit for limit in limits if limit >= 0)
    each = connections_of_server(settings)
    needed = each * settings.workers
    words = f"at most {needed} are needed, {each} for each process"
    if settings.pgbouncer_mode != "none":
        yield Finding(Grade.OK, "connections", f"{words}; PgBouncer's limits are not checked")
    elif needed > allowed:
        what = "increase that limit, or decrease COMMERCE_DB_POOL_SIZE or COMMERCE_WORKERS"
        yield Finding(Grade.WARN, "connections", f"{words}, and PostgreSQL allows {allowed}: {what}")
    else:
        yield Finding(Grade.OK, "connections", f"{words}, and PostgreSQL allows {allowed}")


def connections_of_server(settings: ServerSettings) -> int:
    """Return the maximum number of connections that one process has to the primary."""
    return (
        settings.db_pool_size
        + settings.max_exports
        + settings.watch_catch_up_connections
        + _PROBE_CONNECTIONS
        + _FEED_CONNECTIONS
        + (_REPLICA_PROBES if settings.read_database_url else 0)
    )


async def _replica(settings: ServerSettings) -> Finding:
    replica = Replica(settings)
    try:
        with translated_errors():
            problem = await replica.problem()
    except StoreError as error:
        problem = describe_store_error(error, replica.address).replace("DATABASE_URL", "READ_DATABASE_URL")
    except TimeoutError:
        problem = f"the replica at {replica.address} does not answer"
    finally:
        await replica.close()
    if problem:
        return Finding(Grade.WARN, "replica", f"{problem}; until this is mended, reads go to the primary")
    return Finding(Grade.OK, "replica", f"{replica.address} lags less than {settings.max_replica_lag:g} s")


_CHECKS: tuple[Callable[[AsyncConnection, Row[Any], ServerSettings], Findings], ...] = (
    _state,
    _schema,
    _durability,
    backup_findings,
    _encryption,
    _clock,
    _connections,
)
