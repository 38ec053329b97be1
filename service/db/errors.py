"""Translate errors of the database by SQLSTATE and constraint name, never by the text of a message.

The class of an exception says little: none of eleven kinds of outage is raised as SQLAlchemy's OperationalError.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from asyncpg import PostgresError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.application.ports.errors import Contention, DatabaseUnavailable, DeadlineExceeded, Overloaded
from service.domain.errors import OrderAlreadyExists, UserAlreadyExists

# The SQLSTATE of a write on a connection to a replica.
READ_ONLY = "25006"
_SQLSTATES: Mapping[str, Callable[[], Exception]] = MappingProxyType(
    {
        "40001": Contention,  # serialization failure
        "40P01": Contention,  # deadlock
        "55P03": Contention,  # lock not available
        "0A000": Contention,  # the schema changed after the statement was prepared; a retry prepares it again
        "57014": DeadlineExceeded,  # statement_timeout
        # Another transaction has deleted what a row refers to, or inserted the same key; a retry sees that. If the key
        # is the number of an order, the sequence lost numbers in a crash or a failover; a retry takes the next one.
        # The constraints below mean something to callers instead.
        "23503": Contention,  # foreign key violation
        "23505": Contention,  # unique violation
    }
)
# Connection exceptions (08), operator intervention such as a shutdown or a failover (57P), no free connections (53),
# and a primary that became a replica. While connecting also: a database that accepts no connections (55000), a wrong
# user or password (28), and a database that does not exist (3D).
_UNAVAILABLE = ("08", "57P", "53", READ_ONLY, "55000", "28", "3D")

# SQLAlchemy's errors, asyncpg's, and those that SQLAlchemy's dialect raises while it connects.
_DATABASE_ERRORS = (DBAPIError, PostgresError, AsyncAdapt_asyncpg_dbapi.Error)

_CONSTRAINTS: Mapping[str, Callable[[], Exception]] = MappingProxyType(
    {
        "uq_users_email": lambda: UserAlreadyExists("email"),
        "uq_users_email_folded": lambda: UserAlreadyExists("email"),
        "uq_users_username": lambda: UserAlreadyExists("username"),
        "uq_orders_user_id_external_ref": lambda: OrderAlreadyExists("external_ref"),
    }
)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that PostgreSQL reported, or None if PostgreSQL did not report the error."""
    original = getattr(error, "orig", error)
    # SQLAlchemy's own InvalidCachedStatementError has no SQLSTATE, but its cause has one: the error of asyncpg.
    for source in (original, getattr(original, "__cause__", None)):
        if isinstance(sqlstate := getattr(source, "sqlstate", None), str):
            return sqlstate
    return None


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that was violated, or None."""
    original = getattr(error, "orig", error)
    # SQLAlchemy's own errors have no constraint name, but their cause has one: the error of asyncpg.
    for source in (original, getattr(original, "__cause__", None)):
        if isinstance(name := getattr(source, "constraint_name", None), str):
            return name
    return None


def translate_error(error: BaseException) -> Exception | None:
    """Return the application's error for an error of the database; None if there is none, for example for a bug."""
    if isinstance(error, PoolTimeoutError):
        # All connections are in use; an immediate retry would only make the queue longer.
        return Overloaded()
    if isinstance(error, OSError):
        # The connection was refused or reset, or (TimeoutError) the server did not answer in time.
        return DatabaseUnavailable()
    if not isinstance(error, _DATABASE_ERRORS):
        return None
    sqlstate = sqlstate_of(error) or ""
    if getattr(error, "connection_invalidated", False) or sqlstate.startswith(_UNAVAILABLE):
        return DatabaseUnavailable()
    known = _CONSTRAINTS.get(constraint_of(error) or "") or _SQLSTATES.get(sqlstate)
    return known() if known else None


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise the application's error instead of an error of the database, if there is one for it."""
    try:
        yield
    except Exception as error:
        if translated := translate_error(error):
            raise translated from error
        raise
