"""Ends a statement that nobody waits for any longer, and keeps its connection."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from service.application.ports.errors import DeadlineExceeded

# How long PostgreSQL may take to cancel a statement before its connection is closed all the same.
_CLOSE_SECONDS = 0.5


async def fetch_until(
    gone: asyncio.Future[None],
    seconds: float,
    connection: Any,  # noqa: ANN401 - asyncpg has no types
    text: str,
    arguments: Sequence[object],
) -> Any:  # noqa: ANN401 - records
    """Return the records of a statement; PostgreSQL cancels it after some seconds, or as soon as `gone` is done.

    The connection can be used again afterwards. When asyncpg's coroutine is cancelled, it asks PostgreSQL to cancel the
    statement. The next statement on the connection waits until PostgreSQL has done that, so the request cannot hit
    another caller's statement.

    Raises:
        DeadlineExceeded: the statement was cancelled.
    """
    fetching = asyncio.ensure_future(connection.fetch(text, *arguments))
    await asyncio.wait({fetching, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if fetching.done():
        return fetching.result()
    fetching.cancel()
    await asyncio.wait({fetching})
    if not fetching.cancelled() and fetching.exception() is None:
        return fetching.result()
    # Fails in the transaction that a connection through PgBouncer has begun.
    with suppress(asyncpg.PostgresError):
        await connection.execute("SELECT")
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")
    raise DeadlineExceeded


async def close_cancelled(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    """Let PostgreSQL cancel the running statement of a connection, and close the connection.

    Otherwise PostgreSQL goes on with the statement after the connection has been closed, and commits what it writes.
    """
    # If that fails or takes too long, asyncpg aborts the connection.
    with suppress(asyncpg.PostgresError, OSError):
        await connection.close(timeout=_CLOSE_SECONDS)
