"""The statements that the service sends to PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

TRANSACTION_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK")
# The server checks its schema and its events every second, and asyncpg asks for types on each new connection.
NOT_OF_CALLS = (
    "alembic_version",
    "events_are_ahead",
    "current_setting('statement_timeout')",
    "typeinfo_tree",
    "current_setting('jit')",
    "set_config('jit'",
)


# All open connections: the executor holds one between statements, so it may open no new one in the block.
_connections: WeakSet[asyncpg.Connection] = WeakSet()


@event.listens_for(Pool, "connect")
def _remember(connection: Any, _record: object) -> None:
    _connections.add(connection.driver_connection)


@contextmanager
def sent_statements(*, with_control: bool = False) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that are sent while the block runs, each with its parameters.

    SQLAlchemy reports the statements that it sends, and asyncpg those of `service.db.connections.executor`.
    `with_control` includes BEGIN, COMMIT and ROLLBACK.
    """
    sent: list[tuple[str, Any]] = []
    # asyncpg reports these too: once for each row.
    for_many_rows: set[str] = set()

    def keep(statement: str, values: Any) -> None:
        if not any(part in statement for part in NOT_OF_CALLS):
            sent.append((statement, values))

    def by_sqlalchemy(
        _connection: object, _cursor: object, text: str, values: Any, _context: object, many: Any
    ) -> None:
        keep(text, values)
        if many:
            for_many_rows.add(text)

    def by_driver(record: asyncpg.connection.LoggedQuery) -> None:
        controls = record.query.startswith(TRANSACTION_CONTROL)
        if record.query not in for_many_rows and (with_control or not controls):
            keep(record.query, record.args)

    event.listen(Engine, "before_cursor_execute", by_sqlalchemy)
    try:
        with _listening(by_driver):
            yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", by_sqlalchemy)


@contextmanager
def _listening(logger: Callable[[asyncpg.connection.LoggedQuery], None]) -> Iterator[None]:
    """Log the statements on all connections, open ones and new ones."""

    def listen_to_new(connection: Any, _record: object) -> None:
        connection.driver_connection.add_query_logger(logger)

    for connection in list(_connections):
        connection.add_query_logger(logger)
    event.listen(Pool, "connect", listen_to_new)
    try:
        yield
    finally:
        event.remove(Pool, "connect", listen_to_new)
        for connection in list(_connections):
            connection.remove_query_logger(logger)
