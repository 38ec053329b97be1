"""Create SQLAlchemy engines: connection pools with the limits from the settings."""

import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import asyncpg
import orjson
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util.concurrency import in_greenlet

from service.config import DatabaseSettings, SettingsError
from service.database_url import DEFAULT_PORT, parse_database_url
from service.db.connections.lost_connections import LostConnections, close_when_unacknowledged
from service.db.connections.pgbouncer import UNPREPARED, connection_class
from service.db.errors import READ_ONLY, sqlstate_of

# Execution option of an engine: whether PgBouncer in transaction mode is between it and PostgreSQL.
_PGBOUNCER = "commerce_pgbouncer"
# Execution option of an engine: its LostConnections.
_LOST = "commerce_lost_connections"
# The parameters of connections that asyncpg takes only as a part of a URL.
_ONLY_IN_URL = (
    *("sslcert", "sslcrl", "sslkey", "sslnegotiation", "sslpassword", "sslrootcert"),
    *("ssl_max_protocol_version", "ssl_min_protocol_version"),
)
# The SQLSTATEs of options for the session that PostgreSQL refuses: syntax errors, unknown names and wrong values. A
# missing right has one of these, too, and is described by `service.db.operations.readiness`.
_WRONG_OPTIONS = ("22", "426", "427")
# How SQLAlchemy reads and writes JSON.
JSON: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"json_serializer": lambda value: orjson.dumps(value).decode(), "json_deserializer": orjson.loads}
)


class ConnectionFailure(ConnectionError):
    """No connection could be opened, for a reason that the message says in one line."""


def async_url(database_url: str, name: str = "DATABASE_URL") -> URL:
    """Return the URL in SQLAlchemy's form for asyncpg.

    Args:
        database_url: the URL, also in the forms that other programs accept (`postgres://…?sslmode=require`).
        name: the name of the setting, for the error.

    Raises:
        SettingsError: it is not a URL of a PostgreSQL database, or asks for something that is not supported. The
            message does not contain the URL, because the URL may contain a password.
    """
    try:
        parsed = parse_database_url(database_url)
    except ValueError as error:
        raise SettingsError(f"{name} is wrong: {error}") from error
    query: dict[str, str] = dict(parsed.parameters)
    host = port = None
    match parsed.hosts:
        case [(str(name), int(number))] if not name.startswith("/"):
            # asyncpg takes PGPORT if it is given no port.
            is_default = number == DEFAULT_PORT and not os.environ.get("PGPORT")
            host, port = name, None if is_default else number
        case [(directory, number)]:
            query |= {"host": directory, "port": str(number)}
        case [_, *_] as several:
            # The dialect needs the port of each.
            query["host"], query["port"] = (",".join(map(str, column)) for column in zip(*several, strict=True))
    return URL.create("postgresql+asyncpg", parsed.user, parsed.password, host, port, parsed.database, query)


def create_engine(
    settings: DatabaseSettings, *, pool_size: int | None = None, answer_seconds: float | None = None
) -> AsyncEngine:
    """Return an engine, which connects when it is first used.

    Args:
        settings: where the database is, and the time limits.
        pool_size: the maximum number of connections, instead of `db_pool_size`.
        answer_seconds: how long to wait for the answer to a statement; a connection without one counts as lost. By
            default a little longer than PostgreSQL lets a statement run.
    """
    connect_args = _connect_args(settings, "commerce", idle_seconds=settings.db_statement_timeout)
    if answer_seconds is not None:
        connect_args["command_timeout"] = answer_seconds
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
        connect_args=connect_args,
    )
    _notice_lost_connections(engine, settings, connect_args)
    return engine


def create_export_engine(settings: DatabaseSettings, *, idle_seconds: float) -> AsyncEngine:
    """Return an engine for exports: each export opens its own connection, which is closed at the end.

    Args:
        settings: where the database is, and the time limits.
        idle_seconds: how long a connection may be idle within a transaction, while the client of an export reads.
    """
    connect_args = _connect_args(settings, "commerce export", idle_seconds=idle_seconds)
    engine = create_async_engine(
        async_url(settings.database_url.get_secret_value()),
        # A new connection costs little compared with an export, so connections are not pooled.
        poolclass=NullPool,
        hide_parameters=True,
        **JSON,
        execution_options=_execution_options(settings),
        connect_args=connect_args,
    )
    _notice_lost_connections(engine, settings, connect_args)
    return engine


def lost_connections(engine: AsyncEngine) -> LostConnections:
    """Return what notices the lost connections of an engine of this module."""
    lost: LostConnections = engine.get_execution_options()[_LOST]
    return lost


def for_single_statements(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine on which each statement is its own transaction and needs no commit."""
    if engine.get_execution_options().get(_PGBOUNCER):
        # Transactions are needed, because they set the limits (`service.db.connections.pgbouncer`).
        return engine
    # A single statement is its own snapshot; BEGIN and ROLLBACK around it would be two more round trips.
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _notice_lost_connections(engine: AsyncEngine, settings: DatabaseSettings, connect_args: dict[str, Any]) -> None:
    _, from_url = engine.dialect.create_connect_args(engine.url)
    address = address_note(from_url)
    options = {name: value for name, value in {**from_url, **connect_args}.items() if name != "async_creator_fn"}
    options["server_settings"] = connect_args["server_settings"] | {"application_name": "commerce probe"}
    # Through PgBouncer, a new connection tells nothing about the others.
    ask = None if settings.pgbouncer_mode == "transaction" else partial(_connect, **options)
    lost = LostConnections(engine, address, ask, answer_seconds=connect_args["command_timeout"])
    engine.update_execution_options(**{_LOST: lost})
    event.listen(engine.sync_engine, "handle_error", _discard_connections)


def _discard_connections(context: ExceptionContext) -> None:
    """Discard all connections of the pool after an error that SQLAlchemy does not take for a lost connection.

    - A write on a connection to a replica. During a failover, a load balancer may have connected all of them to the old
      primary, and PostgreSQL would not close them.
    - No answer in time. A ROLLBACK on that connection would wait as long again.
    """
    error = context.original_exception
    if sqlstate_of(error) == READ_ONLY or isinstance(error, TimeoutError):
        context.is_disconnect = True


def create_migration_engine(url: URL) -> AsyncEngine:
    """Return an engine for migrations, which have no time limits; the URL is one of `async_url`."""
    return create_async_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args={"async_creator_fn": connect_to_database}
    )


def connect_to_database(*arguments: object, **options: Any) -> Awaitable[Any]:  # noqa: ANN401 - asyncpg's
    """Connect within a greenlet of SQLAlchemy, where that can be awaited; else raise MissingGreenlet.

    `service.db.connections.executor` first tries to check a connection out without a greenlet, which works while one is
    idle. SQLAlchemy raises the same error by itself, but only after it has created a coroutine that is never awaited.

    Args:
        arguments: arguments of `asyncpg.connect`.
        options: keyword arguments of `asyncpg.connect`, and the parameters of a database URL that it takes only as
            part of a URL, or not at all.
    """
    if not in_greenlet():
        raise MissingGreenlet
    return _connect(*arguments, **options)


async def _connect(*arguments: object, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's
    session = options.setdefault("server_settings", {})
    options["server_settings"] = session | {
        name: options.pop(name) for name in ("application_name", "options") if name in options
    }
    # 0 means no limit of its own.
    if seconds := int(options.pop("connect_timeout", 0)):
        options["timeout"] = seconds
    if options.get("sslrootcert") == "system":
        del options["sslrootcert"]
        options["ssl"] = ssl.create_default_context()
    in_url = {name: options.pop(name) for name in _ONLY_IN_URL if name in options}
    if in_url:
        options["dsn"] = f"postgresql://?{urlencode(in_url)}"
    try:
        connection = await asyncpg.connect(*arguments, **options)
    except (OSError, asyncpg.PostgresError) as error:
        if (sqlstate_of(error) or "").startswith(_WRONG_OPTIONS):
            raise _failure(error, options) from error
        error.add_note(address_note(options))
        raise
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError) as error:
        # For example, none of the hosts has the wanted target_session_attrs, or PGSSLMODE is wrong.
        raise _failure(error, options) from error
    try:
        close_when_unacknowledged(connection)
    except OSError as error:
        # The server has closed it already.
        connection.terminate()
        error.add_note(address_note(options))
        raise
    return connection


def _failure(error: Exception, options: Mapping[str, Any]) -> ConnectionFailure:
    is_name = isinstance(error, UnicodeError)
    failure = ConnectionFailure("the name of the host is not valid" if is_name else " ".join(str(error).split()))
    failure.add_note(address_note(options))
    return failure


def address_note(options: Mapping[str, Any]) -> str:
    """Return the hosts and ports of options for asyncpg; errors of connecting carry it as a note."""
    hosts, ports = options.get("host"), options.get("port") or os.environ.get("PGPORT") or DEFAULT_PORT
    if isinstance(hosts, list) and isinstance(ports, list):
        return ", ".join(_address(str(host), port) for host, port in zip(hosts, ports, strict=True))
    return _address(str(hosts) if hosts else os.environ.get("PGHOST", "localhost"), ports)


def _address(host: str, port: object) -> str:
    if host.startswith("/"):
        return f"the socket in {host}, port {port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _execution_options(settings: DatabaseSettings) -> dict[str, bool]:
    return {_PGBOUNCER: settings.pgbouncer_mode == "transaction"}


def _connect_args(settings: DatabaseSettings, name: str, *, idle_seconds: float) -> dict[str, Any]:
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
        "async_creator_fn": connect_to_database,
        "timeout": settings.db_connect_timeout,
        # For a network that silently drops packets. While the server can be reached, its own limits end a statement.
        "command_timeout": seconds + 5,
        "server_settings": session,
        **pgbouncer,
    }
