"""Create SQLAlchemy engines: connection pools with the limits from the settings."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import asyncpg
import orjson
from sqlalchemy import event, make_url
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import ArgumentError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util.concurrency import in_greenlet

from service.config import DatabaseSettings, SettingsError
from service.db.connections.pgbouncer import UNPREPARED, connection_class
from service.db.errors import READ_ONLY, sqlstate_of

# Execution option of an engine: whether PgBouncer in transaction mode is between it and PostgreSQL.
_PGBOUNCER = "commerce_pgbouncer"
# How SQLAlchemy reads and writes JSON.
JSON: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"json_serializer": lambda value: orjson.dumps(value).decode(), "json_deserializer": orjson.loads}
)


def async_url(database_url: str, name: str = "DATABASE_URL") -> URL:
    """Return the URL in SQLAlchemy's form for asyncpg.

    Args:
        database_url: the URL, also in the forms that other programs accept (`postgres://…?sslmode=require`).
        name: the name of the setting, for the error.

    Raises:
        SettingsError: it is not a URL of a PostgreSQL database. The message does not contain the URL, because the URL
            may contain a password.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError) as error:
        raise SettingsError(
            f"{name} is wrong: it is not a URL such as postgresql://user:password@host/database"
        ) from error
    if url.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise SettingsError(f"{name} is wrong: it must begin with postgresql://")
    url = url.set(drivername="postgresql+asyncpg")
    if sslmode := url.query.get("sslmode"):
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    return url


def create_engine(settings: DatabaseSettings, *, pool_size: int | None = None) -> AsyncEngine:
    """Return an engine, which connects when it is first used.

    Args:
        settings: where the database is, and the time limits.
        pool_size: the maximum number of connections, instead of `db_pool_size`.
    """
    engine = create_async_engine(
        async_url(settings.database_url.get_secret_value()),
        pool_size=pool_size or settings.db_pool_size,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout,
        # The connection that was returned last is used first, so that the server can time out the others.
        pool_use_lifo=True,
        # A ping before each use would cost more than retrying a call in the rare case of a broken connection.
        pool_pre_ping=False,
        # Keeps the values of statements out of SQLAlchemy's error messages.
        hide_parameters=True,
        **JSON,
        execution_options=_execution_options(settings),
        # A process that hangs within a transaction must not keep its locks.
        connect_args=_connect_args(settings, "commerce", idle_seconds=settings.db_statement_timeout),
    )
    event.listen(engine.sync_engine, "handle_error", _leave_replica)
    return engine


def create_export_engine(settings: DatabaseSettings, *, idle_seconds: float) -> AsyncEngine:
    """Return an engine for exports: each export opens its own connection, which is closed at the end.

    Args:
        settings: where the database is, and the time limits.
        idle_seconds: how long a connection may be idle within a transaction, while the client of an export reads.
    """
    return create_async_engine(
        async_url(settings.database_url.get_secret_value()),
        # A new connection costs little compared with an export, so connections are not pooled.
        poolclass=NullPool,
        hide_parameters=True,
        **JSON,
        execution_options=_execution_options(settings),
        connect_args=_connect_args(settings, "commerce export", idle_seconds=idle_seconds),
    )


def for_single_statements(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine on which each statement is its own transaction and needs no commit."""
    if engine.get_execution_options().get(_PGBOUNCER):
        # Transactions are needed, because they set the limits (`service.db.connections.pgbouncer`).
        return engine
    # A single statement is its own snapshot; BEGIN and ROLLBACK around it would be two more round trips.
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _leave_replica(context: ExceptionContext) -> None:
    """Discard all connections of the pool after a write on a connection to a replica.

    During a failover, a load balancer may have connected all of them to the old primary, and PostgreSQL would not close
    them.
    """
    if sqlstate_of(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


def _connect(*arguments: object, **options: object) -> Awaitable[Any]:
    """Connect within a greenlet of SQLAlchemy, where that can be awaited; else raise MissingGreenlet.

    `service.db.connections.executor` first tries to check a connection out without a greenlet, which works while one is
    idle. SQLAlchemy raises the same error by itself, but only after it has created a coroutine that is never awaited.
    """
    if not in_greenlet():
        raise MissingGreenlet
    connecting: Awaitable[Any] = asyncpg.connect(*arguments, **options)
    return connecting


def _execution_options(settings: DatabaseSettings) -> dict[str, bool]:
    return {_PGBOUNCER: settings.pgbouncer_mode == "transaction"}


def _connect_args(settings: DatabaseSettings, name: str, *, idle_seconds: float) -> dict[str, object]:
    seconds = settings.db_statement_timeout
    limits = {
        "statement_timeout": str(int(seconds * 1000)),
        "idle_in_transaction_session_timeout": str(int(idle_seconds * 1000)),
    }
    session = {"application_name": name, "timezone": "UTC"}
    if settings.pgbouncer_mode == "transaction":
        pgbouncer: dict[str, object] = {**UNPREPARED, "connection_class": connection_class(limits)}
    else:
        session |= limits
        pgbouncer = {}
    return {
        "async_creator_fn": _connect,
        "timeout": settings.db_connect_timeout,
        # For a network that silently drops packets. While the server can be reached, its own limits end a statement.
        "command_timeout": seconds + 5,
        "server_settings": session,
        **pgbouncer,
    }
