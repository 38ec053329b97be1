"""What a failure of the database means, by SQLSTATE and constraint name, never by the text of a message.

Of eleven kinds of outage none arrives as SQLAlchemy's OperationalError, so the exception's class says little.
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

READ_ONLY = "25006"
_SQLSTATES: Mapping[str, Callable[[], Exception]] = MappingProxyType(
    {
        "40001": Contention,  # serialization failure
        "40P01": Contention,  # deadlock
        "55P03": Contention,  # lock not available
        "0A000": Contention,  # a cached statement outlived a change of the schema; another try prepares it anew
        "57014": DeadlineExceeded,  # statement_timeout
    }
)
# Connection exceptions, operator intervention (shutdown, failover), no connection left, a primary turned replica, and
# while connecting a database that takes no connections, or a wrong user, password or database.
_UNAVAILABLE = ("08", "57P", "53", READ_ONLY, "55000", "28", "3D")

# SQLAlchemy's, the driver's own, and what its dialect makes of these while it connects.
_OF_POSTGRESQL = (DBAPIError, PostgresError, AsyncAdapt_asyncpg_dbapi.Error)

_CONSTRAINTS: Mapping[str, Callable[[], Exception]] = MappingProxyType(
    {
        "uq_users_email": lambda: UserAlreadyExists("email"),
        "uq_users_username": lambda: UserAlreadyExists("username"),
        # The sequence is behind: a crash or a failover forgot numbers that were taken and not yet used. Try another.
        "uq_orders_order_number": Contention,
        "uq_orders_user_id_external_ref": lambda: OrderAlreadyExists("external_ref"),
    }
)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that PostgreSQL gave, if the error came from it."""
    original = getattr(error, "orig", error)
    # SQLAlchemy's own InvalidCachedStatementError has lost it; the driver's, its cause, has it.
    for source in (original, getattr(original, "__cause__", None)):
        if isinstance(sqlstate := getattr(source, "sqlstate", None), str):
            return sqlstate
    return None


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that was violated, if one was."""
    original = getattr(error, "orig", error)
    # SQLAlchemy's own errors have lost it; the driver's, their cause, have it.
    for source in (original, getattr(original, "__cause__", None)):
        if isinstance(name := getattr(source, "constraint_name", None), str):
            return name
    return None


def translate_error(error: BaseException) -> Exception | None:
    """Return the error that the application knows, or None for one that is nobody's fault but ours."""
    if isinstance(error, PoolTimeoutError):
        # All connections are at work for others; trying again at once would only make the queue longer.
        return Overloaded()
    if isinstance(error, OSError):
        # OSError: connection refused, reset, or (TimeoutError) not answered in time.
        return DatabaseUnavailable()
    if not isinstance(error, _OF_POSTGRESQL):
        return None
    sqlstate = sqlstate_of(error) or ""
    if getattr(error, "connection_invalidated", False) or sqlstate.startswith(_UNAVAILABLE):
        return DatabaseUnavailable()
    by_sqlstate = _SQLSTATES.get(sqlstate)
    known = by_sqlstate or _CONSTRAINTS.get(constraint_of(error) or "")
    return known() if known else None


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise the meaning of an error of the database instead of the error, where it has one."""
    try:
        yield
    except Exception as error:
        if meaning := translate_error(error):
            raise meaning from error
        raise
