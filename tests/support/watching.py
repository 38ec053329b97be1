"""Watches that are read by a test, and events inserted without a call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb

from tests.support.clients import Clients

PATIENCE_SECONDS = 30
T = TypeVar("T")


class Stream:
    """A watch, read response by response."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.cursor = ""

    async def next(self) -> Any:
        """Return the next response: an event or a checkpoint."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            response = await self.call.read()
        assert hasattr(response, "cursor"), "the stream ended without an error"
        self.cursor = response.cursor
        return response

    async def checkpoint(self) -> str:
        """Return the cursor of the next response, which must be a checkpoint."""
        response = await self.next()
        assert response.WhichOneof("content") == "checkpoint", response
        return str(response.cursor)

    async def events(self, count: int) -> list[Any]:
        """Return the next events, skipping checkpoints."""
        events: list[Any] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(events) < count:
                response = await self.next()
                if response.WhichOneof("content") == "event":
                    events.append(response.event)
        return events


@asynccontextmanager
async def watch_orders(clients: Clients, **request: Any) -> AsyncIterator[Stream]:
    """Watch orders until the block ends."""
    call = clients.orders.WatchOrders(orders_pb.WatchOrdersRequest(**request))
    try:
        yield Stream(call)
    finally:
        call.cancel()


@asynccontextmanager
async def watch_users(clients: Clients, **request: Any) -> AsyncIterator[Stream]:
    """Watch users until the block ends."""
    call = clients.users.WatchUsers(users_pb.WatchUsersRequest(**request))
    try:
        yield Stream(call)
    finally:
        call.cancel()


async def insert_events(connection: asyncpg.Connection, count: int = 1, **columns: Any) -> list[str]:
    """Insert events of orders that do not exist, and return their ids in order."""
    values = {"type": "CREATED", "changes": "[]", "user_id": None, "status": "PENDING", "order_id": None, **columns}
    rows = await connection.fetch(
        """
        INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
        SELECT gen_random_uuid(), 'order', coalesce($6, gen_random_uuid()), $2, 'test', now(), $3::jsonb, $4, $5
        FROM generate_series(1, $1) RETURNING id
        """,
        count,
        *(values[name] for name in ("type", "changes", "user_id", "status", "order_id")),
    )
    return [str(row["id"]) for row in rows]


def ids(events: list[Any]) -> list[str]:
    """Return the ids of events."""
    return [event.id for event in events]


async def committed_event_ids(connection: asyncpg.Connection) -> list[str]:
    """Return the ids of all order events, in the order in which every watcher gets them."""
    rows = await connection.fetch("SELECT id FROM events WHERE aggregate_type = 'order' ORDER BY xid, position")
    return [str(row["id"]) for row in rows]
