"""What the service leaves behind in PostgreSQL and in its pool."""

import asyncio
from dataclasses import dataclass

import commerce.users.v1.user_service_pb2 as users_pb

from tests.support.clients import connect
from tests.support.databases import Observer
from tests.support.locks import holding

POOL_SIZE = 10
# Beside the pool, the server has a connection for its readiness probe, and one that asks about lost ones.
OTHERS = 2


@dataclass(frozen=True)
class Connections:
    """The service's connections to a database, as PostgreSQL sees them."""

    open: int
    active: int
    idle_in_transaction: int
    locks: int


async def connections(observer: Observer) -> Connections:
    """Return what PostgreSQL knows about the service's connections; the readiness probe does not count as active."""
    row = await observer.connection.fetchrow(
        """
        SELECT count(*) AS open,
               count(*) FILTER (WHERE state = 'active') AS active,
               count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction,
               coalesce(sum((SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid)), 0)::int AS locks
        FROM pg_stat_activity a WHERE datname = current_database() AND application_name = 'commerce'
        """
    )
    return Connections(**row)


async def free_slots(database_url: str, observer: Observer, port: int, username: str) -> int:
    """Return how many connections of the pool can be used at the same time: its size, unless some are leaked."""
    async with connect(port) as clients, holding(database_url, "LOCK TABLE users"):
        # By name, because reads by id share statements.
        request = users_pb.GetUserRequest(username=username)
        calls = [asyncio.ensure_future(clients.users.GetUser(request, timeout=20)) for _ in range(POOL_SIZE + 5)]
        found = 0
        for _ in range(100):
            found = len(await observer.backends(waiting=True))
            if found >= POOL_SIZE:
                break
            await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    return found
