"""Callers in Python, in a process of their own: `python -m benchmarks.callers KIND PORT COUNT [USER_ID]`.

They print a line when all of them have come, and go when standard input ends.
"""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import uvloop
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.type.money_pb2 import Money

from benchmarks.servers import ROOT

# Else all channels of a process share their connections.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
# A server allows 100 on one connection.
CALLS_ON_A_CONNECTION = 50
EXPIRES_SECONDS = 0.002
# That a caller of the kind `leave` makes.
CALLS_LEFT = 4


@contextmanager
def callers(kind: str, port: int, count: int, user_id: str = "") -> Iterator[None]:
    """Have callers until the block ends; all of them have come when it begins.

    Raises:
        click.ClickException: they did not all come.

    """
    command = [sys.executable, "-m", "benchmarks.callers", kind, str(port), str(count), user_id]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin, "it is a pipe"
        assert process.stdout, "it is a pipe"
        if not process.stdout.readline():
            raise click.ClickException(f"the callers failed: {kind}")
        yield
        process.stdin.close()
        process.wait()


def new_order(user_id: str) -> orders_pb.CreateOrderRequest:
    """Return a request for an order of one item."""
    price = Money(currency_code="EUR", units=9)
    item = OrderItem(product_id="part-1", name="Part", quantity=1, unit_price=price)
    return orders_pb.CreateOrderRequest(order=Order(user_id=user_id, items=[item]))


async def connect(channel: grpc.aio.Channel, _user_id: str) -> None:
    """Open a connection."""
    await channel.channel_ready()


async def watch(channel: grpc.aio.Channel, _user_id: str) -> None:
    """Begin a watch."""
    call = OrderServiceStub(channel).WatchOrders(orders_pb.WatchOrdersRequest(now=True))
    await call.read()
    held.append(call)


async def wait(channel: grpc.aio.Channel, user_id: str) -> None:
    """Begin a call that waits for the user, whom somebody has locked."""
    await channel.channel_ready()
    held.append(asyncio.ensure_future(OrderServiceStub(channel).CreateOrder(new_order(user_id), timeout=30)))


async def leave(channel: grpc.aio.Channel, user_id: str) -> None:
    """Leave one watch and three calls: before the answer, after a moment, and by their deadline."""
    users, orders = UserServiceStub(channel), OrderServiceStub(channel)
    watching = orders.WatchOrders(orders_pb.WatchOrdersRequest(now=True))
    await watching.read()
    watching.cancel()
    request = new_order(user_id)
    request.request_id = str(uuid.uuid4())
    calls: list[Any] = [
        users.GetUser(users_pb.GetUserRequest(id=user_id)),
        orders.CreateOrder(request),
        orders.CreateOrder(new_order(user_id), timeout=EXPIRES_SECONDS),
    ]
    calls[0].cancel()
    await asyncio.sleep(EXPIRES_SECONDS)
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)


# What must not be collected, which would end it.
held: list[object] = []
KINDS: dict[str, tuple[Callable[[grpc.aio.Channel, str], Awaitable[None]], int]] = {
    "connect": (connect, 1),
    "watch": (watch, CALLS_ON_A_CONNECTION),
    "wait": (wait, CALLS_ON_A_CONNECTION),
    "leave": (leave, CALLS_ON_A_CONNECTION // CALLS_LEFT),
}


async def main(kind: str, port: int, count: int, user_id: str) -> None:
    """Let so many come, and wait for standard input to end."""
    come, of_a_connection = KINDS[kind]
    target = f"127.0.0.1:{port}"
    channels = [grpc.aio.insecure_channel(target, options=OWN_CONNECTION) for _ in range(0, count, of_a_connection)]
    await asyncio.gather(*(come(channels[index % len(channels)], user_id) for index in range(count)))
    click.echo("ready")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
