"""Measure the disk space of users and orders and of their indexes: `python -m benchmarks.sizes`.

`benchmarks.data` fills most tables. The service writes the others: calls with request ids create users with passwords
and take orders from PENDING to DELIVERED, which stores events and responses.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import asyncpg
import click
import commerce.orders.v1.order_service_pb2 as pb
import grpc
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2 import CreateUserRequest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.type.money_pb2 import Money

from benchmarks.data import Data
from benchmarks.database import Database, filled_database
from benchmarks.servers import KINDS, running

DATA = Data(users=100_000, orders=200_000)
FILLED = ("users", "user_profiles", "orders", "order_items")
WRITTEN = ("user_passwords", "events", "request_ids")
# Users and orders that the service creates, and how many of them concurrently.
LIFE_CYCLES = 1500
CONCURRENT = 10
SIZE = """
SELECT (SELECT count(*) FROM {0}) AS number, pg_relation_size('{0}') AS rows, pg_indexes_size('{0}') AS indexes
"""


class Size(NamedTuple):
    """The number of rows of a table, and the bytes of the table and of its indexes."""

    number: int
    rows: int
    indexes: int


@click.command()
def main() -> None:
    """Print the bytes per row of each table."""
    with tempfile.TemporaryDirectory() as name, filled_database(Path(name) / "postgres", DATA) as database:
        asyncio.run(measure(database, Path(name)))


async def measure(database: Database, folder: Path) -> None:
    """Print the bytes per row of the tables that are filled, then of those that the service writes."""
    click.echo(f"{'bytes per row':16}{'table':>8}{'indexes':>9}{'both':>7}")
    report(dict.fromkeys(FILLED, Size(0, 0, 0)), await sizes(database, *FILLED))
    before = await sizes(database, *WRITTEN)
    with running(KINDS[0], database.url, folder) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for _ in range(LIFE_CYCLES // CONCURRENT):
                await asyncio.gather(*(life_cycle(channel) for _ in range(CONCURRENT)))
    report(before, await sizes(database, *WRITTEN))


async def life_cycle(channel: grpc.aio.Channel) -> None:
    """Create a user, and take an order of three items from PENDING to DELIVERED."""
    name = f"u{uuid4().hex[:20]}"
    user = User(email=f"{name}@example.com", username=name, full_name="Ada Lovelace")
    create = CreateUserRequest(user=user, password=name, request_id=str(uuid4()))
    user_id = (await UserServiceStub(channel).CreateUser(create)).user.id
    items = [
        OrderItem(product_id=part, name=part, quantity=1, unit_price=Money(currency_code="EUR", units=9))
        for part in ("part-anvil", "part-kite", "part-rocket")
    ]
    orders = OrderServiceStub(channel)
    place = pb.CreateOrderRequest(order=Order(user_id=user_id, items=items), request_id=str(uuid4()))
    order_id = (await orders.CreateOrder(place)).order.id
    await orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order_id, request_id=str(uuid4())))
    await orders.ProcessOrder(pb.ProcessOrderRequest(id=order_id, request_id=str(uuid4())))
    await orders.ShipOrder(pb.ShipOrderRequest(id=order_id, tracking_number="1Z 999", request_id=str(uuid4())))
    await orders.DeliverOrder(pb.DeliverOrderRequest(id=order_id, request_id=str(uuid4())))


async def sizes(database: Database, *tables: str) -> Mapping[str, Size]:
    """Return the sizes of tables."""
    connection = await asyncpg.connect(database.url)
    found = {table: Size(*await connection.fetchrow(SIZE.format(table))) for table in tables}
    await connection.close()
    return found


def report(before: Mapping[str, Size], after: Mapping[str, Size]) -> None:
    """Print the bytes per row that was added between two measurements."""
    for table, (number, rows, indexes) in after.items():
        new = number - before[table].number
        own, in_indexes = (rows - before[table].rows) / new, (indexes - before[table].indexes) / new
        click.echo(f"{table:16}{own:8.0f}{in_indexes:9.0f}{own + in_indexes:7.0f}")


if __name__ == "__main__":
    main()
