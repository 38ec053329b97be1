"""Callers that place and change orders and move credit, on several servers, and record what they see."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_pb2 import OrderEventType, OrderStatus
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.type.money_pb2 import Money

from tests.faults.apart import Signals
from tests.faults.history import CHANGES, READ, History, Operation
from tests.faults.placing_orders import IMPATIENT
from tests.support.clients import item, new_order
from tests.support.failures import Failure, failure_of
from tests.support.requests import transition_request

_DEADLINE_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
# The newest orders, which callers change together.
_RECENT = 100
# After these, a caller makes the call again with the same request id.
_RETRIED = {"UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"}
_TRANSITIONS = [kind for kind in CHANGES if kind != "Create"]


class Shoppers:
    """The callers of one process.

    Args:
        signals: from `apart`.
        channels: to the servers; each attempt goes to one of them at random.
        user_ids: the users who order.
        with_request_id: whether calls have a request id.
    """

    def __init__(
        self,
        signals: Signals,
        channels: Sequence[grpc.aio.Channel],
        user_ids: Sequence[str],
        *,
        with_request_id: bool,
    ) -> None:
        self.history = History()
        self._signals = signals
        self._orders = [OrderServiceStub(channel) for channel in channels]
        self._users = [UserServiceStub(channel) for channel in channels]
        self._user_ids = user_ids
        self._with_request_id = with_request_id
        self._recent: list[str] = []

    async def run(self, random: Random) -> None:
        """Make calls, one after the other, until told to stop."""
        actions = {self._create: 20, self._change: 45, self._read: 20, self._transfer: 10, self._grant: 5}
        while not self._signals.stop.is_set():
            (action,) = random.choices([*actions], [*actions.values()])
            await action(random)
            self._signals.count()

    async def _create(self, random: Random) -> None:
        user_id, units = random.choice(self._user_ids), random.randint(1, 20)
        paid = random.random() < 0.5
        request_id = self._request_id(random)
        request = orders_pb.CreateOrderRequest(
            order=new_order(user_id, items=[item("anvil", 1, units)]), request_id=request_id, pay_with_credit=paid
        )
        begin = time.monotonic()
        answer = await self._answer(random, self._orders, "CreateOrder", request, {"INSUFFICIENT_CREDIT"})
        if isinstance(answer, Failure):
            return
        self._note("Create", begin, answer.order)
        if paid:
            self.history.paid[answer.order.id] = (user_id, 100 * units)
        self._recent = [*self._recent[1 - _RECENT :], answer.order.id]

    async def _change(self, random: Random) -> None:
        if not self._recent:
            return
        kind, order_id = random.choice(_TRANSITIONS), random.choice(self._recent)
        request = transition_request(kind, order_id, request_id=self._request_id(random))
        begin = time.monotonic()
        answer = await self._answer(random, self._orders, f"{kind}Order", request, {"ILLEGAL_TRANSITION"})
        if isinstance(answer, Failure):
            if state := answer.metadata.get("state"):
                refused = Operation(kind, order_id, begin, time.monotonic(), state, None)
                self.history.operations.append(refused)
        else:
            self._note(kind, begin, answer.order)

    async def _read(self, random: Random) -> None:
        if not self._recent:
            return
        request = orders_pb.GetOrderRequest(id=random.choice(self._recent))
        begin = time.monotonic()
        answer = await self._answer(random, self._orders, "GetOrder", request, set())
        if not isinstance(answer, Failure):
            self._note(READ, begin, answer.order)

    async def _transfer(self, random: Random) -> None:
        giver, taker = random.sample(self._user_ids, 2)
        cents = random.randint(1, 500)
        request = users_pb.TransferCreditRequest(
            from_user_id=giver, to_user_id=taker, amount=_euros(cents), request_id=self._request_id(random)
        )
        answer = await self._answer(random, self._users, "TransferCredit", request, {"INSUFFICIENT_CREDIT"})
        if not isinstance(answer, Failure):
            self.history.moved[giver] -= cents
            self.history.moved[taker] += cents

    async def _grant(self, random: Random) -> None:
        user_id, cents = random.choice(self._user_ids), random.randint(1, 10_000)
        request = users_pb.GrantCreditRequest(
            user_id=user_id, amount=_euros(cents), request_id=self._request_id(random)
        )
        answer = await self._answer(random, self._users, "GrantCredit", request, set())
        if not isinstance(answer, Failure):
            self.history.granted[user_id] += cents

    async def _answer(self, random: Random, stubs: Sequence[Any], method: str, request: Any, expected: set[str]) -> Any:
        """Make a call until it has a definite outcome; return the response, or the failure."""
        while True:
            try:
                return await getattr(random.choice(stubs), method)(request, timeout=_DEADLINE_SECONDS)
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
            self.history.attempts[failure.reason or failure.code.name] += 1
            if failure.code.name not in _RETRIED:
                if failure.reason not in expected:
                    self.history.unexpected.append(f"{method}: {failure.code.name} {failure.reason} {failure.message}")
                return failure
            await asyncio.sleep(random.uniform(0.5, 1.5) * _PAUSE_SECONDS)

    def _note(self, kind: str, begin: float, order: Any) -> None:
        status = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
        version = int(order.etag.removeprefix("v"))
        self.history.operations.append(Operation(kind, order.id, begin, time.monotonic(), status, version))

    def _request_id(self, random: Random) -> str:
        return str(UUID(int=random.getrandbits(128), version=4)) if self._with_request_id else ""


def _euros(cents: int) -> Money:
    return Money(currency_code="EUR", units=cents // 100, nanos=cents % 100 * 10_000_000)


async def shop(
    signals: Signals,
    ports: Sequence[int],
    user_ids: Sequence[str],
    seed: int,
    *,
    callers: int,
    with_request_id: bool = True,
) -> History:
    """Make random calls to the servers on these ports until told to stop; counts the calls."""
    options = [*IMPATIENT, ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for port in ports for _ in range(4)]
    shoppers = Shoppers(signals, channels, user_ids, with_request_id=with_request_id)
    await asyncio.gather(*(shoppers.run(Random(seed + number)) for number in range(callers)))
    for channel in channels:
        await channel.close()
    return shoppers.history


async def watch(signals: Signals, ports: Sequence[int], seed: int) -> Mapping[str, Any]:
    """Watch all orders from the earliest event until told to stop, and resume after every failure; counts the events.

    Returns:
        `events`: the order's id, the event's id and the type of every event received, in order; `failures`: the number
        of streams that ended, by reason.
    """
    random = Random(seed)
    events: list[tuple[str, str, str]] = []
    failures: dict[str, int] = {}
    cursor = ""

    async def read() -> None:
        nonlocal cursor
        while True:
            start: dict[str, Any] = {"cursor": cursor} if cursor else {"earliest": True}
            async with grpc.aio.insecure_channel(f"127.0.0.1:{random.choice(ports)}", options=IMPATIENT) as channel:
                try:
                    async for response in OrderServiceStub(channel).WatchOrders(orders_pb.WatchOrdersRequest(**start)):
                        if response.WhichOneof("content") == "event":
                            event = response.event
                            kind = OrderEventType.Name(event.type).removeprefix("ORDER_EVENT_TYPE_")
                            events.append((event.order_id, event.id, kind))
                            signals.count()
                        # As if both were stored in one transaction.
                        cursor = response.cursor
                except grpc.aio.AioRpcError as error:
                    failure = failure_of(error)
                    reason = failure.reason or failure.code.name
                    failures[reason] = failures.get(reason, 0) + 1
            await asyncio.sleep(_PAUSE_SECONDS)

    reading = asyncio.create_task(read())
    stopping = asyncio.create_task(signals.stop.wait())
    await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return {"events": events, "failures": failures}
