"""Callers that place orders through failures.

This imports nothing of the service, so that the processes of the callers start soon.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub

from tests.faults.apart import Signals
from tests.support.clients import item, new_order
from tests.support.failures import failure_of

# Callers reconnect more often than by default, which waits up to two minutes.
IMPATIENT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
)
# Between the attempts of a caller, on average.
_PAUSE_SECONDS = 0.1


@dataclass
class Told:
    """What callers were told about the orders that they placed.

    Each order has a unique name, which is in its metadata.

    Attributes:
        acknowledged: the order's id by its name.
        times: when each of these answers arrived, by the monotonic clock, with the number of the caller.
        failures: the number of failed attempts by reason, or by code if the service did not send the status.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    times: list[tuple[float, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def seconds_until_all_served(self, moment: float, callers: int) -> float:
        """Return how many seconds after a moment each of the callers had been answered since that moment."""
        first: dict[int, float] = {}
        for when, caller in self.times:
            if when >= moment:
                first.setdefault(caller, when - moment)
        return max(first.values()) if len(first) == callers else float("inf")


async def place_orders(
    signals: Signals,
    port: int,
    user_ids: Sequence[str],
    seed: int,
    *,
    with_request_id: bool = True,
    retries: bool = True,
    deadline: float | None = 5,
) -> Told:
    """Place orders of each user, one after the other, until told to stop; counts the orders that are acknowledged.

    Args:
        signals: from `apart`.
        port: of the server.
        user_ids: one for each caller.
        seed: of the names, which are also the request ids.
        with_request_id: whether calls have a request id.
        retries: whether a caller repeats a call that failed for any reason until it is answered.
        deadline: of each attempt, in seconds; None leaves it to the server.
    """
    told = Told()
    # A channel for each caller, because a channel that has lost its connection fails all of its calls together.
    options = [*IMPATIENT, ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in user_ids]

    async def call(number: int) -> None:
        random = Random(seed + number)
        orders = OrderServiceStub(channels[number])
        while not signals.stop.is_set():
            name = str(UUID(int=random.getrandbits(128), version=4))
            order = new_order(user_ids[number], items=[item("anvil", 1, 10)], metadata={"call": name})
            request = pb.CreateOrderRequest(order=order, request_id=name if with_request_id else "")
            # The last order, too, is repeated until it is acknowledged.
            while name not in told.acknowledged:
                try:
                    answer = await orders.CreateOrder(request, timeout=deadline)
                except grpc.aio.AioRpcError as error:
                    failure = failure_of(error)
                    told.failures[failure.reason or failure.code.name] += 1
                    if not retries:
                        break
                    await asyncio.sleep(random.uniform(0.5, 1.5) * _PAUSE_SECONDS)
                else:
                    told.acknowledged[name] = answer.order.id
                    told.times.append((time.monotonic(), number))
                    signals.count()

    await asyncio.gather(*(call(number) for number in range(len(user_ids))))
    for channel in channels:
        await channel.close()
    return told
