"""What the service sends to PostgreSQL, and who waits there."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine


@contextmanager
def sent_statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that SQLAlchemy sends while the block runs, each with its values."""
    sent: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, values: object, *_rest: object) -> None:
        # The server looks at its schema every second, whatever it is asked.
        if "alembic_version" not in statement:
            sent.append((statement, values))

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", keep)


async def until_someone_waits(connection: asyncpg.Connection) -> None:
    """Return once a transaction waits for a lock that this connection has."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waits):  # noqa: ASYNC110 - only the database knows
            await asyncio.sleep(0.01)
