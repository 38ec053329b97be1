"""Locks that tests hold, so that calls wait for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from tests.support.databases import driver_connection


@asynccontextmanager
async def holding(url: str, statement: str, *values: object) -> AsyncIterator[asyncpg.Connection]:
    """Hold the locks that a statement takes until the block ends."""
    async with driver_connection(url) as connection, connection.transaction():
        await connection.execute(statement, *values)
        yield connection


CREATE_ORDER = "/commerce.orders.v1.OrderService/CreateOrder"


@asynccontextmanager
async def holding_request_id(url: str, request_id: str, method: str = CREATE_ORDER) -> AsyncIterator[None]:
    """Claim a request id as a concurrent call would, and roll back when the block ends."""
    async with driver_connection(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO request_ids (caller, method, request_id, body_digest) VALUES ('anonymous', $1, $2, '')",
            method,
            UUID(request_id),
        )
        try:
            yield
        finally:
            await transaction.rollback()


# Makes the COMMIT of a new order wait, inside PostgreSQL, for the advisory lock 1.
COMMIT_WAITS = """
CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON orders
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_commit()
"""

# Takes that lock, so that commits wait until this transaction ends.
HOLD_COMMITS = "SELECT pg_advisory_xact_lock(1)"


async def until_blocked(connection: asyncpg.Connection) -> None:
    """Wait until a transaction waits for a lock that this connection holds."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waits):  # noqa: ASYNC110 - only the database knows
            await asyncio.sleep(0.01)
