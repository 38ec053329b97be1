"""The connection pool."""

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

# An engine's own option: whether there is a pooler in transaction mode between it and PostgreSQL.
_POOLER = "commerce_pooler"
# How SQLAlchemy reads and writes JSON.
JSON: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"json_serializer": lambda value: orjson.dumps(value).decode(), "json_deserializer": orjson.loads}
)


def async_url(database_url: str, name: str = "DATABASE_URL") -> URL:
    """Return the URL for asyncpg, also from the forms that other programs take (`postgres://…?sslmode=require`).

    Raises:
        SettingsError: it is not a URL of a PostgreSQL database; the message does not repeat it, as it may hold a
        password.
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
    """Return an engine; it connects with its first use.

    Args:
        settings: where the database is, and how long things may take.
        pool_size: connections at most, instead of what the settings say.
    """
    engine = create_async_engine(
        async_url(settings.database_url.get_secret_value()),
        pool_size=pool_size or settings.db_pool_size,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout,
        # Connections used last are used first, so the others can age out on the server's side.
        pool_use_lifo=True,
        # A ping before each use costs more than a call's retry after the rare broken connection.
        pool_pre_ping=False,
        # Statements' values never reach a message of SQLAlchemy.
        hide_parameters=True,
        **JSON,
        execution_options=_execution_options(settings),
        # A process that stops in the middle of a transaction must not keep its locks.
        connect_args=_connect_args(settings, "commerce", idle_seconds=settings.db_statement_timeout),
    )
    event.listen(engine.sync_engine, "handle_error", _leave_replica)
    return engine


def create_export_engine(settings: DatabaseSettings, *, idle_seconds: float) -> AsyncEngine:
    """Return an engine whose connections are made for one use each and may do nothing for so long in a transaction."""
    return create_async_engine(
        async_url(settings.database_url.get_secret_value()),
        # Beside an export a new connection costs nothing, and none is kept for the next one.
        poolclass=NullPool,
        hide_parameters=True,
        **JSON,
        execution_options=_execution_options(settings),
        connect_args=_connect_args(settings, "commerce export", idle_seconds=idle_seconds),
    )


def for_single_statements(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine on which each statement is a transaction of its own; it is left without a commit."""
    if engine.get_execution_options().get(_POOLER):
        # Its transactions carry the limits.
        return engine
    # A single statement is its own snapshot; BEGIN and ROLLBACK around it would be two more round trips.
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _leave_replica(context: ExceptionContext) -> None:
    """Drop all connections when one of them leads to a replica, as those made during a failover may do for ever."""
    if sqlstate_of(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


def _connect(*arguments: object, **options: object) -> Awaitable[Any]:
    """Connect, where that can be awaited; raises MissingGreenlet where it cannot.

    `service.db.connections.executor` first tries to check a connection out without a greenlet, which works while one is
    idle. SQLAlchemy raises the same error, but too late: by then it has created a coroutine that is never awaited.
    """
    if not in_greenlet():
        raise MissingGreenlet
    connecting: Awaitable[Any] = asyncpg.connect(*arguments, **options)
    return connecting


def _execution_options(settings: DatabaseSettings) -> dict[str, bool]:
    return {_POOLER: settings.pgbouncer_mode == "transaction"}


def _connect_args(settings: DatabaseSettings, name: str, *, idle_seconds: float) -> dict[str, object]:
    seconds = settings.db_statement_timeout
    limits = {
        "statement_timeout": str(int(seconds * 1000)),
        "idle_in_transaction_session_timeout": str(int(idle_seconds * 1000)),
    }
    session = {"application_name": name, "timezone": "UTC"}
    if settings.pgbouncer_mode == "transaction":
        kept: dict[str, object] = {**UNPREPARED, "connection_class": connection_class(limits)}
    else:
        session |= limits
        kept = {}
    return {
        "async_creator_fn": _connect,
        "timeout": settings.db_connect_timeout,
        # For a network that swallows packets; the server's own limits come first.
        "command_timeout": seconds + 5,
        "server_settings": session,
        **kept,
    }
