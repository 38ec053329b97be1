"""What a service has stored: written by its methods, and seen by its methods and in the tables."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
from google.protobuf.message import Message

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations import migrate
from tests.recoveries.plan import ROWS
from tests.support.clients import Clients, new_user
from tests.support.databases import driver_connection
from tests.support.methods import call
from tests.support.passwords import PASSWORD
from tests.support.requests import GOOD_REQUESTS
from tests.support.servers import OwnServer
from tests.support.waiting import eventually


async def migrate_database(url: str) -> None:
    """Create the schema."""
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        await migrate.upgrade(engine)
    finally:
        await engine.dispose()


async def fill(clients: Clients) -> None:
    """Call every method, so that nearly all tables have rows, and create more users with orders."""
    for method, good_request in GOOD_REQUESTS.items():
        await call(clients.channel, method, await good_request(clients))
    request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD, request_id=str(uuid4()))
    await clients.users.CreateUser(request)
    for _ in range(ROWS):
        await clients.create_order((await clients.create_user()).id)


@asynccontextmanager
async def placing_orders(clients: Clients) -> AsyncIterator[list[str]]:
    """Create orders until the block ends, at least ten of them; yields their ids."""
    user_id, placed, ends = (await clients.create_user()).id, list[str](), asyncio.Event()

    async def place() -> None:
        while not ends.is_set():
            placed.append((await clients.create_order(user_id)).id)
            # So that what is read afterwards, and compared, does not take longer than what is tested.
            await asyncio.sleep(0.05)

    placing = asyncio.create_task(place())
    try:
        yield placed
        await eventually(lambda: len(placed) >= 10 or placing.done())
    finally:
        ends.set()
        await placing


async def contents(url: str) -> dict[str, tuple[int, int]]:
    """Return the number of rows and a digest of every table."""
    async with driver_connection(url) as connection:
        # It uses only the connection.
        no_clients: Any = None
        return await OwnServer(no_clients, url, connection).contents()


async def seen(clients: Clients) -> dict[str, bytes]:
    """Return all that callers can read, by the method and the id of what it is about."""
    found: dict[str, bytes] = {}
    for_users: Any = clients.users.ExportUsers(users_pb.ExportUsersRequest(show_deleted=True))
    for_orders: Any = clients.orders.ExportOrders(orders_pb.ExportOrdersRequest())
    users = [user async for batch in for_users for user in batch.users]
    orders = [order async for batch in for_orders for order in batch.orders]
    for user in users:
        found[f"user {user.id}"] = _bytes(user)
        credit = users_pb.ListCreditEntriesRequest(user_id=user.id)
        found[f"credit {user.id}"] = _bytes(await clients.users.ListCreditEntries(credit))
        balance = users_pb.GetCreditBalanceRequest(user_id=user.id)
        found[f"balance {user.id}"] = _bytes(await clients.users.GetCreditBalance(balance))
    for order in orders:
        found[f"order {order.id} of {order.user_id}"] = _bytes(order)
        timeline = orders_pb.ListOrderEventsRequest(order_id=order.id)
        found[f"timeline {order.id} of {order.user_id}"] = _bytes(await clients.orders.ListOrderEvents(timeline))
        notes = orders_pb.ListOrderNotesRequest(order_id=order.id)
        found[f"notes {order.id} of {order.user_id}"] = _bytes(await clients.orders.ListOrderNotes(notes))
    return found


def without(found: dict[str, bytes], user_id: str) -> dict[str, bytes]:
    """Return what is about other users."""
    return {name: message for name, message in found.items() if user_id not in name}


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
