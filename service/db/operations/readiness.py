"""Checks whether this build can use the database."""

import errno
import socket
import ssl
from collections.abc import Iterator, Sequence

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import DatabaseUnavailable, StoreError
from service.db.connections.engine import for_single_statements
from service.db.errors import sqlstate_of, translated_errors
from service.db.operations import migrate

_UNREACHABLE = "the database cannot be reached: check that it is running at the address in DATABASE_URL"
# Why a connection failed, by the class of the error; the first that fits.
_REASONS = {
    socket.gaierror: "the name of the host cannot be resolved",
    ssl.SSLError: "TLS failed",
    ConnectionRefusedError: "the connection was refused",
    FileNotFoundError: "there is no socket",
    TimeoutError: "it did not answer in time",
    ConnectionResetError: "it closed the connection",
    PermissionError: "the system denies it",
    OSError: "the network failed",
}
_REASONS_BY_TEXT = {
    f"[Errno {errno.ECONNREFUSED}]": "the connection was refused",
    "SSL upgrade": "it refuses TLS, which DATABASE_URL asks for",
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
# False behind a PgBouncer that is configured to ignore the startup parameters that set the limits of a connection.
_IS_LIMITED = text("SELECT current_setting('statement_timeout') <> '0'")


async def readiness_problem(engine: AsyncEngine) -> str | None:
    """Return what is wrong with the database, as one line for an operator; None if it is ready."""
    try:
        with translated_errors():
            async with for_single_statements(engine).connect() as connection:
                limited = await connection.scalar(_IS_LIMITED)
                revision = await migrate.current(connection)
    except StoreError as error:
        return describe_store_error(error)
    if not limited:
        return (
            "statements have no time limit: a proxy in front of PostgreSQL has dropped it; for PgBouncer in"
            " transaction mode, set COMMERCE_PGBOUNCER_MODE=transaction"
        )
    if migrate.is_behind(revision):
        return (
            f"the schema is at revision {revision or 'none'}, and this build needs {migrate.head()}:"
            " run `commerce migrate`"
        )
    return None


def describe_store_error(error: StoreError) -> str:
    """Return what failed, as one line for an operator."""
    causes = list(_causes(error))
    sqlstate = next((found for cause in causes if (found := sqlstate_of(cause))), "")
    if isinstance(error, DatabaseUnavailable):
        return _unavailable(sqlstate, causes)
    return f"the database was too busy or too slow (SQLSTATE {sqlstate or 'unknown'}); try again"


def describe_missing_right(error: BaseException) -> str | None:
    """Return which right the user of the database lacks, as one line for an operator; None for any other error."""
    causes = list(_causes(error))
    if not any(sqlstate_of(cause) == _INSUFFICIENT_PRIVILEGE for cause in causes):
        return None
    message = next((cause.message for cause in causes if isinstance(cause, asyncpg.PostgresError)), "permission denied")
    return f"the user in DATABASE_URL lacks a right: {message}"


def _unavailable(sqlstate: str, causes: Sequence[BaseException]) -> str:
    refusal = next((words for start, words in _REFUSALS.items() if sqlstate.startswith(start)), None)
    address = next((note for cause in causes for note in getattr(cause, "__notes__", ())), None)
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
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return " ".join(str(error).split())
    if not isinstance(error, OSError):
        return None
    # Errors without a number are raised for several addresses, for example of IPv4 and IPv6, and by asyncpg.
    by_text = (words for part, words in _REASONS_BY_TEXT.items() if error.errno is None and part in str(error))
    return next(by_text, next(words for kind, words in _REASONS.items() if isinstance(error, kind)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, up to the error of the driver or the system."""
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "orig", None) or error.__context__
