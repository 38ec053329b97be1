"""Checks whether this build can use the database."""

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import asyncpg
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.application.ports.errors import DatabaseUnavailable, StoreError
from service.db.connections.engine import ConnectionFailure, for_single_statements, lost_connections
from service.db.errors import sqlstate_of, translated_errors
from service.db.operations import migrate
from service.db.operations.restored_events import ARE_AHEAD

_UNREACHABLE = "the database cannot be reached: check that it is running at the address in DATABASE_URL"
# Why a connection failed, by the class of the error or a base of it.
_REASONS: Mapping[type, str] = {
    socket.gaierror: "the name of the host cannot be resolved",
    ssl.SSLError: "TLS failed",
    ConnectionRefusedError: "the connection was refused",
    FileNotFoundError: "there is no socket",
    NotADirectoryError: "there is no socket",
    TimeoutError: "it did not answer in time",
    ConnectionResetError: "it closed the connection",
    PermissionError: "the system denies it",
    OSError: "the network failed",
}
_REASONS_BY_TEXT = {
    f"[Errno {errno.ECONNREFUSED}]": "the connection was refused",
    "SSL upgrade": "it refuses TLS, which DATABASE_URL asks for, or is no PostgreSQL",
}
_INSUFFICIENT_PRIVILEGE = "42501"
# Messages for refused connections, by the beginning of the SQLSTATE.
_REFUSALS = {
    "08P01": "PgBouncer at DATABASE_URL refuses the connection: if it is in transaction mode, set"
    " COMMERCE_PGBOUNCER_MODE=transaction; if that is set already, see the log of PgBouncer",
    "28": "the database refuses the user or the password in DATABASE_URL",
    "3D": "the database that DATABASE_URL names does not exist",
    "53": "the database has no free connections",
}
# What the service needs from the database, apart from the schema.
_STATE = text("""
SELECT current_setting('statement_timeout') <> '0' AS is_limited,
       pg_is_in_recovery() AS is_standby,
       current_setting('transaction_read_only') = 'on' AS is_read_only,
       getdatabaseencoding() AS encoding
""")
# The rights that `commerce serve` needs, by the names of tables.
TABLE_RIGHTS: Mapping[str, str] = MappingProxyType(
    {
        "alembic_version": "SELECT",
        "users": "SELECT INSERT UPDATE DELETE",
        "user_passwords": "SELECT INSERT UPDATE",
        "user_profiles": "SELECT INSERT UPDATE",
        "sign_in_attempts": "SELECT INSERT UPDATE DELETE",
        "orders": "SELECT INSERT UPDATE DELETE",
        "order_items": "SELECT INSERT DELETE",
        # UPDATE to lock tags, which the service never changes.
        "tags": "SELECT INSERT UPDATE",
        "order_tags": "SELECT INSERT DELETE",
        "order_notes": "SELECT INSERT UPDATE DELETE",
        "credit_accounts": "SELECT INSERT UPDATE DELETE",
        "credit_entries": "SELECT INSERT DELETE",
        "events": "SELECT INSERT DELETE",
        "swept_events": "SELECT",
        "request_ids": "SELECT INSERT UPDATE DELETE",
        "signing_keys": "SELECT",
        # INSERT and UPDATE are for `commerce gc`.
        "maintenance_runs": "SELECT INSERT UPDATE",
    }
)
# The functions that statements and triggers call; PostgreSQL checks no right to the functions of triggers themselves.
FUNCTIONS = ("event_xid", "note_search", "search_words", "user_search")
# Without USAGE of the schema, PostgreSQL finds no table, so that is looked up by the table of the revision. A table
# that does not exist has no rights to miss; then the revision is wrong.
_MISSING_RIGHTS = text("""
SELECT format('USAGE on schema %I', n.nspname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'alembic_version' AND to_regclass('alembic_version') IS NULL
  AND NOT has_schema_privilege(n.oid, 'USAGE')
UNION ALL
SELECT format('%s on %I', needed."right", needed.name)
FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[])) AS needed (name, "right")
WHERE NOT has_table_privilege(to_regclass(needed.name), needed."right")
UNION ALL
SELECT 'USAGE on order_number_seq'
WHERE NOT has_sequence_privilege(to_regclass('order_number_seq'), 'USAGE')
UNION ALL
SELECT * FROM (
    SELECT format('EXECUTE on %s', p.oid::regprocedure)
    FROM pg_class c JOIN pg_proc p ON p.pronamespace = c.relnamespace
    WHERE c.oid = to_regclass('users') AND p.proname = ANY (CAST(:functions AS text[]))
      AND NOT has_function_privilege(p.oid, 'EXECUTE')
    ORDER BY p.proname
) AS functions
""")
_EVENTS_ARE_AHEAD = text(f"SELECT {ARE_AHEAD} AS events_are_ahead")
_NEEDED = [(name, right) for name, rights in TABLE_RIGHTS.items() for right in rights.split()]
_RIGHTS = {
    "names": [name for name, _ in _NEEDED],
    "rights": [right for _, right in _NEEDED],
    "functions": list(FUNCTIONS),
}


async def readiness_problem(engine: AsyncEngine) -> str | None:
    """Return what is wrong with the database, as one line for an operator; None if it is ready.

    Raises:
        Overloaded: the pool of the engine has no free connection, so the state of the database is unknown.
    """
    try:
        with translated_errors():
            async with for_single_statements(engine).connect() as connection:
                return await _problem(connection)
    except StoreError as error:
        return describe_store_error(error, lost_connections(engine).address)
    except Exception as error:
        # For example, to connect.
        if lacks := describe_missing_right(error):
            return lacks
        raise


async def _problem(connection: AsyncConnection) -> str | None:
    state = await database_state(connection)
    if problem := write_problem(state) or migrate.encoding_problem(state.encoding) or limit_problem(state):
        # A new connection may lead to the new primary after a failover.
        await connection.invalidate()
        return problem
    return (
        await rights_problem(connection)
        or migrate.schema_problem(await migrate.current(connection))
        or await event_problem(connection)
    )


async def database_state(connection: AsyncConnection) -> Row[Any]:
    """Return what the service needs from the database, apart from the schema, for the functions below."""
    return (await connection.execute(_STATE)).one()


async def rights_problem(connection: AsyncConnection) -> str | None:
    """Return which rights the user of the database lacks, as one line for an operator."""
    missing = (await connection.scalars(_MISSING_RIGHTS, _RIGHTS)).all()
    return f"the user in DATABASE_URL lacks rights: {', '.join(missing)}" if missing else None


async def event_problem(connection: AsyncConnection) -> str | None:
    """Return why new events would not be found, as one line for an operator."""
    if not await connection.scalar(_EVENTS_ARE_AHEAD):
        return None
    return (
        "the events were restored from another PostgreSQL cluster, which counts transactions further than this one,"
        " so new events would not be found: stop all servers and relays, and run `commerce restore-events`"
    )


def write_problem(state: Row[Any]) -> str | None:
    """Return why the database accepts no writes, as one line for an operator."""
    if state.is_standby:
        return "the database is a standby, which accepts no writes: DATABASE_URL must point to the primary"
    if state.is_read_only:
        return "the database is read-only: set default_transaction_read_only to off"
    return None


def limit_problem(state: Row[Any]) -> str | None:
    """Return why statements have no time limit, as one line for an operator."""
    if not state.is_limited:
        # Behind a PgBouncer that is configured to ignore the startup parameters that set the limits of a connection.
        return (
            "statements have no time limit: a proxy in front of PostgreSQL has dropped it; for PgBouncer in"
            " transaction mode, set COMMERCE_PGBOUNCER_MODE=transaction"
        )
    return None


def describe_store_error(error: StoreError, address: str | None = None) -> str:
    """Return what failed, as one line for an operator.

    Args:
        error: the error.
        address: host and port of the database, if they are known; errors of connecting have them anyway.
    """
    causes = list(_causes(error))
    sqlstate = next((found for cause in causes if (found := sqlstate_of(cause))), "")
    if isinstance(error, DatabaseUnavailable):
        return _unavailable(sqlstate, causes, address)
    return f"the database was too busy or too slow (SQLSTATE {sqlstate or 'unknown'}); try again"


def describe_missing_right(error: BaseException) -> str | None:
    """Return which right the user of the database lacks, as one line for an operator; None for any other error."""
    causes = list(_causes(error))
    if not any(sqlstate_of(cause) == _INSUFFICIENT_PRIVILEGE for cause in causes):
        return None
    message = next((cause.message for cause in causes if isinstance(cause, asyncpg.PostgresError)), "permission denied")
    return f"the user in DATABASE_URL lacks a right: {message}"


def _unavailable(sqlstate: str, causes: Sequence[BaseException], address: str | None) -> str:
    refusal = next((words for start, words in _REFUSALS.items() if sqlstate.startswith(start)), None)
    address = next((note for cause in causes for note in getattr(cause, "__notes__", ())), address)
    if refusal:
        return f"{refusal} ({address})" if address else refusal
    reason = next((reason for cause in causes if (reason := _network_reason(cause))), None)
    if address is None:
        return f"{_UNREACHABLE}{f': {reason}' if reason else ''}"
    return f"the database cannot be reached at {address}: {reason or 'the connection failed'}; check DATABASE_URL"


def _network_reason(error: BaseException) -> str | None:
    """Return why a connection failed, by the class of the error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is refused: {error.verify_message}"
    if isinstance(error, ConnectionFailure):
        return str(error)
    if isinstance(error, ssl.SSLError) and error.reason:
        # Such as NO_CERTIFICATE_OR_CRL_FOUND.
        return f"TLS failed: {error.reason.replace('_', ' ').lower()}"
    if not isinstance(error, OSError):
        return None
    if error.errno is None:
        # Raised for several addresses, for example of IPv4 and IPv6, and by asyncpg.
        by_text = (words for part, words in _REASONS_BY_TEXT.items() if part in str(error))
        if reason := next(by_text, None):
            return reason
    return next(_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, up to the error of the driver or the system."""
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "orig", None) or error.__context__
