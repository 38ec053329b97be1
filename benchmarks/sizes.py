"""Measures what users and orders take on disk, with their indexes: `python -m benchmarks.sizes`.

Most tables are as `benchmarks.data` fills them. What it does not fill comes through the service, under request ids:
users with passwords, and orders from PENDING to DELIVERED with the events and the kept answers that they leave behind.
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
LIVES = 1500
AT_ONCE = 10
SIZE = """
SELECT (SELECT count(*) FROM {0}) AS number, pg_relation_size('{0}') AS rows, pg_indexes_size('{0}') AS indexes
"""


class Size(NamedTuple):
    """How many rows a table has, and the bytes of them and of their indexes."""

    number: int
    rows: int
    indexes: int


@click.command()
def main() -> None:
    """Print the bytes of a row of each table."""
    with tempfile.TemporaryDirectory() as name, filled_database(Path(name) / "postgres", DATA) as database:
        asyncio.run(measure(database, Path(name)))


async def measure(database: Database, folder: Path) -> None:
    """Print what a row takes in the tables that are filled, then in those that are written to."""
    click.echo(f"{'bytes of a row':16}{'itself':>8}{'indexes':>9}{'both':>7}")
    report(dict.fromkeys(FILLED, Size(0, 0, 0)), await sizes(database, *FILLED))
    before = await sizes(database, *WRITTEN)
    with running(KINDS[0], database.url, folder) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for _ in range(LIVES // AT_ONCE):
                await asyncio.gather(*(live(channel) for _ in range(AT_ONCE)))
    report(before, await sizes(database, *WRITTEN))


async def live(channel: grpc.aio.Channel) -> None:
    """Make a user, and bring an order of three items to its end."""
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
    """Print what each row that came since takes."""
    for table, (number, rows, indexes) in after.items():
        new = number - before[table].number
        own, in_indexes = (rows - before[table].rows) / new, (indexes - before[table].indexes) / new
        click.echo(f"{table:16}{own:8.0f}{in_indexes:9.0f}{own + in_indexes:7.0f}")


if __name__ == "__main__":
    main()
