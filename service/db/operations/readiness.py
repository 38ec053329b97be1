"""Checks whether this build can use the database."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import DatabaseUnavailable, StoreError
from service.db.connections.engine import for_single_statements
from service.db.errors import sqlstate_of, translated_errors
from service.db.operations import migrate

_UNREACHABLE = "the database cannot be reached: check that it is running at the address in DATABASE_URL"
# Messages for refused connections, by the beginning of the SQLSTATE.
_REFUSALS = {
    "08P01": "PgBouncer at DATABASE_URL refuses the connection: if it is in transaction mode, set"
    " COMMERCE_PGBOUNCER_MODE=transaction; if that is set already, see the log of PgBouncer",
    "28": "the database refuses the user or the password in DATABASE_URL",
    "3D": "the database that DATABASE_URL names does not exist",
    "53": "the database has no free connections",
}
# False behind a PgBouncer that is configured to ignore the startup parameters that set the limits of a connection.
_IS_LIMITED = "current_setting('statement_timeout') <> '0'"
_PROPERTIES = text(f"SELECT {_IS_LIMITED} AS limited, {migrate.ENCODING} AS encoding")


async def readiness_problem(engine: AsyncEngine) -> str | None:
    """Return what is wrong with the database, as one line for an operator; None if it is ready."""
    try:
        with translated_errors():
            async with for_single_statements(engine).connect() as connection:
                properties = (await connection.execute(_PROPERTIES)).one()
                revision = await migrate.current(connection)
    except StoreError as error:
        return describe_store_error(error)
    if not properties.limited:
        return (
            "statements have no time limit: a proxy in front of PostgreSQL has dropped it; for PgBouncer in"
            " transaction mode, set COMMERCE_PGBOUNCER_MODE=transaction"
        )
    if problem := migrate.encoding_problem(properties.encoding):
        return problem
    if migrate.is_behind(revision):
        return (
            f"the schema is at revision {revision or 'none'}, and this build needs {migrate.head()}:"
            " run `commerce migrate`"
        )
    return None


def describe_store_error(error: StoreError) -> str:
    """Return what failed, as one line for an operator."""
    sqlstate = sqlstate_of(error.__cause__ or error) or ""
    if isinstance(error, DatabaseUnavailable):
        return next((words for start, words in _REFUSALS.items() if sqlstate.startswith(start)), _UNREACHABLE)
    return f"the database was too busy or too slow (SQLSTATE {sqlstate or 'unknown'}); try again"
