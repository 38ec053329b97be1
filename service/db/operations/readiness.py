"""Whether the database can be used by this build."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import DatabaseUnavailable, StoreError
from service.db.connections.engine import for_single_statements
from service.db.errors import sqlstate_of, translated_errors
from service.db.operations import migrate

_UNREACHABLE = "the database cannot be reached: is it running where DATABASE_URL says?"
# By how the SQLSTATE begins.
_REFUSALS = {
    "08P01": "PgBouncer is at DATABASE_URL and refuses: in transaction mode it needs COMMERCE_DB_POOLER=transaction;"
    " if that is set, its log says why",
    "28": "the database refuses the user or the password in DATABASE_URL",
    "3D": "there is no database of the name in DATABASE_URL",
    "53": "the database has no connection left",
}
# What a pooler that was told to ignore the limits of a connection makes of them.
_IS_LIMITED = text("SELECT current_setting('statement_timeout') <> '0'")


async def readiness_problem(engine: AsyncEngine) -> str | None:
    """Return what is wrong with the database, in words for an operator, or None."""
    try:
        with translated_errors():
            async with for_single_statements(engine).connect() as connection:
                limited = await connection.scalar(_IS_LIMITED)
                revision = await migrate.current(connection)
    except StoreError as error:
        return describe_store_error(error)
    if not limited:
        return (
            "statements have no time limit, so something between here and PostgreSQL has dropped it: for PgBouncer in"
            " transaction mode, set COMMERCE_DB_POOLER=transaction"
        )
    if migrate.is_behind(revision):
        return (
            f"the schema is at revision {revision or 'none'}, and this build needs {migrate.head()}:"
            " run `commerce migrate`"
        )
    return None


def describe_store_error(error: StoreError) -> str:
    """Return what failed, in words for an operator."""
    sqlstate = sqlstate_of(error.__cause__ or error) or ""
    if isinstance(error, DatabaseUnavailable):
        return next((words for start, words in _REFUSALS.items() if sqlstate.startswith(start)), _UNREACHABLE)
    return f"the database was too busy or too slow (SQLSTATE {sqlstate or 'unknown'}); try again"
