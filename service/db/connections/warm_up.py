"""Open connections before they are needed, so that the first calls of a server do not wait for them."""

import asyncio
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.errors import translated_errors


async def warm_up(engine: AsyncEngine, count: int) -> Sequence[Exception]:
    """Open connections together and leave them idle in the pool; returns why each of the others could not be opened.

    Args:
        engine: the owner of the pool, from which nothing else takes connections meanwhile.
        count: how many connections, at most the size of the pool.
    """
    connections = [engine.connect() for _ in range(count)]

    async def start(number: int) -> Exception | None:
        try:
            with translated_errors():
                await connections[number].start()
        except Exception as error:  # noqa: BLE001 - a server works without this connection
            return error
        return None

    # All are checked out before the first goes back, because the pool would hand that one out again.
    failures = await asyncio.gather(*map(start, range(count)))
    for connection, failure in zip(connections, failures, strict=True):
        if failure is None:
            await connection.close()
    return [failure for failure in failures if failure is not None]
