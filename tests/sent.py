"""What the service sends to PostgreSQL, and who waits there."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

TRANSACTION_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK")
# The server looks at its schema every second, and the driver asks for types on each new connection.
NOT_OF_CALLS = (
    "alembic_version",
    "current_setting('statement_timeout')",
    "typeinfo_tree",
    "current_setting('jit')",
    "set_config('jit'",
)


@contextmanager
def sent_statements(*, with_control: bool = False) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that are sent while the block runs, each with its values.

    SQLAlchemy tells of those that it sends, and the driver of those of `service.db.driver`. BEGIN, COMMIT and ROLLBACK
    are among them if asked for.
    """
    sent: list[tuple[str, Any]] = []
    listening: list[asyncpg.Connection] = []
    # Of these the driver tells too.
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

    def listen(connection: Any, *_rest: object) -> None:
        listening.append(connection.driver_connection)
        connection.driver_connection.add_query_logger(by_driver)

    event.listen(Engine, "before_cursor_execute", by_sqlalchemy)
    event.listen(Pool, "checkout", listen)
    try:
        yield sent
    finally:
        event.remove(Pool, "checkout", listen)
        event.remove(Engine, "before_cursor_execute", by_sqlalchemy)
        for connection in listening:
            connection.remove_query_logger(by_driver)


async def until_someone_waits(connection: asyncpg.Connection) -> None:
    """Return once a transaction waits for a lock that this connection has."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waits):  # noqa: ASYNC110 - only the database knows
            await asyncio.sleep(0.01)
