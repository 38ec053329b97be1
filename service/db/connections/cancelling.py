"""Cancels a statement whose caller has gone or has no time left, and keeps the connection if PostgreSQL answers."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from service.application.ports.errors import DeadlineExceeded

# How long PostgreSQL has to report that it has cancelled a statement.
_ANSWER_SECONDS = 0.75
# How long to wait before PostgreSQL is asked again to cancel a statement that still runs.
_ASK_AGAIN_SECONDS = 0.25
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

    When asyncpg's coroutine is cancelled, it asks PostgreSQL to cancel the statement.

    Raises:
        DeadlineExceeded: the statement was cancelled; the connection can be used again.
        TimeoutError: PostgreSQL did not report that it has cancelled the statement; the connection is lost.
    """
    fetching = asyncio.ensure_future(connection.fetch(text, *arguments))
    try:
        await asyncio.wait({fetching, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        # The caller closes the connection. asyncio would log the error with which this ends the statement.
        fetching.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise
    if fetching.done():
        return fetching.result()
    fetching.cancel()
    await asyncio.wait({fetching})
    if not fetching.cancelled() and fetching.exception() is None:
        return fetching.result()
    if not await answers(connection):
        raise TimeoutError
    raise DeadlineExceeded


async def answers(connection: Any) -> bool:  # noqa: ANN401 - asyncpg has no types
    """Return whether a connection can be used again after asyncpg has asked PostgreSQL to cancel its statement.

    The next statement on the connection waits until PostgreSQL has done that, so the request cannot hit another
    caller's statement.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await _until_ended(connection)
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")
    except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
        return False
    return not connection.is_closed()


async def _until_ended(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    """Wait until PostgreSQL has ended the cancelled statement of a connection.

    PostgreSQL ignores a request that arrives before the statement, on the other connection, so it is asked again.
    """
    ended = asyncio.ensure_future(_round_trip(connection))
    asked_again = False
    try:
        while not (await asyncio.wait({ended}, timeout=_ASK_AGAIN_SECONDS))[0]:
            asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            connection._cancel_current_command(asked)  # noqa: SLF001 - asyncpg itself asks once, when a task is cancelled
            await asked
            asked_again = True
    except asyncio.CancelledError:
        ended.cancel()
        raise
    ended.result()
    if asked_again:
        # The last request may have come after the end of the statement. Then it hits this, and nothing later.
        await _round_trip(connection)


async def _round_trip(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    # Fails in the transaction that a connection through PgBouncer has begun.
    with suppress(asyncpg.PostgresError):
        await connection.execute("SELECT")


async def close_cancelled(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    """Let PostgreSQL cancel the running statement of a connection, and close the connection.

    Otherwise PostgreSQL goes on with the statement after the connection has been closed, and commits what it writes.
    """
    # If that fails or takes too long, asyncpg aborts the connection.
    with suppress(asyncpg.PostgresError, OSError):
        await connection.close(timeout=_CLOSE_SECONDS)
