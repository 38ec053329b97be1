"""A caller that calls at a steady rate while others abuse the server, and how long its calls took."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from tests.faults.apart import Signals
from tests.faults.as_caller import Metadata
from tests.support.clients import item, new_order
from tests.support.failures import failure_of

_CALLS_PER_SECOND = 150
# One call in five places an order, the others get a user by id or by name.
_KINDS = 5
_DEADLINE_SECONDS = 10


@dataclass
class Experience:
    """What the caller has seen.

    Attributes:
        calls: when each call was due, by the monotonic clock, and how many seconds later it was answered.
        failures: the number of failed calls by reason, or by code if the service did not send the status.
    """

    calls: list[tuple[float, float]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def p99_ms(self, periods: Sequence[tuple[float, float]]) -> float:
        """Return the 99th percentile of the milliseconds that calls took which were due in these periods."""
        taken = sorted(seconds for due, seconds in self.calls if any(start <= due < end for start, end in periods))
        return taken[int(len(taken) * 0.99)] * 1000


async def call_politely(
    signals: Signals, port: int, user_id: str, username: str, metadata: Metadata = ()
) -> Experience:
    """Call until told to stop, each call when it is due even if those before still run; counts the answers."""
    options: dict[str, Any] = {"timeout": _DEADLINE_SECONDS, "metadata": metadata}
    experience = Experience()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    users, orders = UserServiceStub(channel), OrderServiceStub(channel)
    order = new_order(user_id, items=[item("anvil", 1, 10)])

    async def call(number: int, due: float) -> None:
        try:
            if number % _KINDS == 0:
                await orders.CreateOrder(orders_pb.CreateOrderRequest(order=order), **options)
            elif number % 2:
                await users.GetUser(users_pb.GetUserRequest(id=user_id), **options)
            else:
                await users.GetUser(users_pb.GetUserRequest(username=username), **options)
            signals.count()
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            experience.failures[failure.reason or f"{failure.code.name}: {failure.message}"] += 1
        experience.calls.append((due, time.monotonic() - due))

    async with asyncio.TaskGroup() as calls:
        start = time.monotonic()
        number = 0
        while not signals.stop.is_set():
            due = start + number / _CALLS_PER_SECOND
            await asyncio.sleep(max(due - time.monotonic(), 0))
            calls.create_task(call(number, due))
            number += 1
    await channel.close()
    return experience
