"""Run callers that place orders during failures, and a watcher of the orders' events; record what they received."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import grpc
from commerce.orders.v1.order_pb2 import Order, OrderEventType, OrderItem
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2 import CreateUserRequest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.rpc.error_details_pb2 import ErrorInfo
from google.type.money_pb2 import Money
from grpc_status import rpc_status

DEADLINE_SECONDS = 5
PAUSE_SECONDS = 0.1
# How often to check whether the watcher has seen the last order, every PAUSE_SECONDS.
CHECKS = 300
ITEMS = [
    OrderItem(product_id=name, name=name, quantity=1, unit_price=Money(currency_code="EUR", units=price))
    for name, price in (("anvil", 10), ("kite", 20), ("rocket", 99))
]


@dataclass
class Told:
    """Responses that callers received, and events that the watcher received.

    Each call has a unique name, which is in the metadata of its order.

    Attributes:
        acknowledged: the order's id for each call that was answered with an order.
        times: when each of these answers arrived, by the monotonic clock.
        refused: names of calls without request_id whose status said that nothing was written.
        failures: the number of failed calls by reason, or by gRPC status and details where a status had no reason.
        seen: how often the watcher received each order's creation.
        standstill: the longest time in seconds for which this process was not scheduled.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    standstill: float = 0

    def answered_since(self, moment: float) -> bool:
        """Return whether a call was answered with an order after a moment."""
        return bool(self.times) and self.times[-1] > moment

    def longest_pause_since(self, moment: float) -> float:
        """Return the longest time in seconds between two answers, counting those that end after a moment."""
        return max(
            later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False) if later > moment
        )


@asynccontextmanager
async def load(ports: Sequence[int], *, repeating: int, once: int) -> AsyncIterator[Told]:
    """Place orders until the block ends; then wait until running calls end and the watcher has seen their orders.

    Args:
        ports: ports of the servers, over which the callers are spread.
        repeating: number of callers that repeat a call with the same request_id until it is answered with an order.
        once: number of callers that use no request_id and make each call once.
    """
    told, stop = Told(), asyncio.Event()
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports]
    others = [asyncio.create_task(_watch(channels[0], told)), asyncio.create_task(_measure_standstill(told))]
    callers = [
        asyncio.create_task(_place_orders(channels[number % len(channels)], told, stop, repeat=number < repeating))
        for number in range(repeating + once)
    ]
    try:
        yield told
        stop.set()
        await asyncio.gather(*callers)
        # Events arrive in commit order: once the watcher has seen the last order, it has seen all of them.
        last = await _place_orders(channels[0], told, stop, repeat=True)
        for _ in range(CHECKS):
            if told.acknowledged[last] in told.seen:
                break
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        for task in (*others, *callers):
            task.cancel()
        await asyncio.gather(*others, *callers, return_exceptions=True)
        for channel in channels:
            await channel.close()


async def _place_orders(channel: grpc.aio.Channel, told: Told, stop: asyncio.Event, *, repeat: bool) -> str:
    """Place one or more orders of a new user until `stop` is set, and return the call of the last one."""
    user_id = await _new_user(channel)
    while True:
        call = str(uuid4())
        order = Order(user_id=user_id, items=ITEMS, metadata={"call": call})
        request = pb.CreateOrderRequest(order=order, request_id=call if repeat else "")
        while not await _answered(channel, request, call, told) and repeat:
            pass
        if stop.is_set():
            return call


async def _answered(channel: grpc.aio.Channel, request: pb.CreateOrderRequest, call: str, told: Told) -> bool:
    try:
        answer = await OrderServiceStub(channel).CreateOrder(request, timeout=DEADLINE_SECONDS)
    except grpc.aio.AioRpcError as error:
        reason = _reason_of(error)
        told.failures[reason or f"{error.code().name}: {error.details()}"] += 1
        if reason not in {"", "OUTCOME_UNKNOWN"} and not request.request_id:
            told.refused.add(call)
        await asyncio.sleep(PAUSE_SECONDS)
        return False
    told.acknowledged[call] = answer.order.id
    told.times.append(time.monotonic())
    return True


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in a status, or an empty string if the service did not send the status."""
    info = ErrorInfo()
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # takes the error of an aio call too
    for detail in status.details if status else ():
        detail.Unpack(info)
    return info.reason


async def _watch(channel: grpc.aio.Channel, told: Told) -> None:
    request = pb.WatchOrdersRequest(earliest=True)
    while True:
        try:
            async for response in OrderServiceStub(channel).WatchOrders(request):
                if response.event.type == OrderEventType.ORDER_EVENT_TYPE_CREATED:
                    told.seen[response.event.order_id] += 1
                request = pb.WatchOrdersRequest(cursor=response.cursor)
        except grpc.aio.AioRpcError as error:
            told.failures[f"watch: {_reason_of(error) or error.code().name}"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def _measure_standstill(told: Told) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(PAUSE_SECONDS)
        told.standstill = max(told.standstill, time.monotonic() - before - PAUSE_SECONDS)


async def _new_user(channel: grpc.aio.Channel) -> str:
    name = f"u{uuid4().hex[:20]}"
    user = User(email=f"{name}@example.com", username=name)
    request = CreateUserRequest(user=user, password=str(uuid4()))
    return (await UserServiceStub(channel).CreateUser(request)).user.id
