"""Run callers in a process of their own: `python -m benchmarks.callers KIND PORT COUNT [USER_ID]`.

The process prints a line when all callers have started, and exits when its standard input is closed.
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

# By default, all channels of a process to the same target share one connection.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
# The service allows 100 concurrent calls on one connection.
CALLS_ON_A_CONNECTION = 50
EXPIRES_SECONDS = 0.002
# The calls that a caller of the kind `abandon` makes.
ABANDONED_CALLS = 4


@contextmanager
def callers(kind: str, port: int, count: int, user_id: str = "") -> Iterator[None]:
    """Run callers until the block ends; all of them have started when it begins.

    Raises:
        click.ClickException: not all callers started.

    """
    command = [sys.executable, "-m", "benchmarks.callers", kind, str(port), str(count), user_id]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin, "it is a pipe"
        assert process.stdout, "it is a pipe"
        if not process.stdout.readline():
            raise click.ClickException(f"not all {count} callers of kind {kind} could start; the traceback is above")
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
    """Start a WatchOrders stream."""
    call = OrderServiceStub(channel).WatchOrders(orders_pb.WatchOrdersRequest(now=True))
    await call.read()
    held.append(call)


async def wait(channel: grpc.aio.Channel, user_id: str) -> None:
    """Start a call that waits for the lock on the user's row."""
    await channel.channel_ready()
    held.append(asyncio.ensure_future(OrderServiceStub(channel).CreateOrder(new_order(user_id), timeout=600)))


async def abandon(channel: grpc.aio.Channel, user_id: str) -> None:
    """Cancel a watch and two calls, one immediately and one after a moment, and let another exceed its deadline."""
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


# References to the calls: one that is garbage collected is cancelled.
held: list[object] = []
KINDS: dict[str, tuple[Callable[[grpc.aio.Channel, str], Awaitable[None]], int]] = {
    "connect": (connect, 1),
    "watch": (watch, CALLS_ON_A_CONNECTION),
    "wait": (wait, CALLS_ON_A_CONNECTION),
    "abandon": (abandon, CALLS_ON_A_CONNECTION // ABANDONED_CALLS),
}


async def main(kind: str, port: int, count: int, user_id: str) -> None:
    """Start the callers, and wait until standard input is closed."""
    start, callers_per_connection = KINDS[kind]
    target = f"127.0.0.1:{port}"
    channels = [
        grpc.aio.insecure_channel(target, options=OWN_CONNECTION) for _ in range(0, count, callers_per_connection)
    ]
    await asyncio.gather(*(start(channels[index % len(channels)], user_id) for index in range(count)))
    click.echo("ready")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
