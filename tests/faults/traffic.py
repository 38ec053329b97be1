"""Callers that make calls of several kinds, and count those that fail."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.type.money_pb2 import Money

from tests.faults.apart import Signals
from tests.support.clients import item, new_order
from tests.support.failures import failure_of

# The share of the calls that are not cancelled, so that it is known how long calls take.
_MEASURED = 0.1


@dataclass
class Seen:
    """What callers saw.

    Attributes:
        calls: how many calls were made.
        failures: how many failed, by reason, or by code if the service did not send the status.
        longest: the longest time in seconds that a call took.
        gap: the longest time in seconds in which none of the calls was answered with success.
    """

    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    longest: float = 0
    gap: float = 0
    _answered: float = field(default_factory=time.monotonic)

    def note(self, start: float, failure: str | None) -> None:
        """Count a call that began at `start` and has just ended."""
        now = time.monotonic()
        self.calls += 1
        self.longest = max(self.longest, now - start)
        if failure is None:
            self.gap = max(self.gap, now - self._answered)
            self._answered = now
        else:
            self.failures[failure] += 1


class Caller:
    """Makes calls about a user of its own: reads, single-statement writes and transactions."""

    def __init__(self, channel: grpc.aio.Channel, user_id: str, random: Random, deadline: float) -> None:
        self._users, self._orders = UserServiceStub(channel), OrderServiceStub(channel)
        self._user_id = user_id
        self._random = random
        self._deadline = deadline
        self._pending: list[str] = []

    def start(self) -> "grpc.aio.UnaryUnaryCall[Any, Any]":
        """Start a random call."""
        kinds = {self._get_user: 40, self._create: 25, self._get_order: 20, self._confirm: 10, self._grant: 5}
        (kind,) = self._random.choices([*kinds], [*kinds.values()])
        return kind()

    def made(self, answer: object) -> None:
        """Remember an order that was created, for later calls."""
        if isinstance(answer, orders_pb.CreateOrderResponse):
            self._pending.append(answer.order.id)

    def _request_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def _get_user(self) -> "grpc.aio.UnaryUnaryCall[Any, Any]":
        return self._users.GetUser(users_pb.GetUserRequest(id=self._user_id), timeout=self._deadline)

    def _create(self) -> "grpc.aio.UnaryUnaryCall[Any, Any]":
        order = new_order(self._user_id, items=[item("anvil", 1, 10)])
        request = orders_pb.CreateOrderRequest(order=order, request_id=self._request_id())
        return self._orders.CreateOrder(request, timeout=self._deadline)

    def _get_order(self) -> "grpc.aio.UnaryUnaryCall[Any, Any]":
        if not self._pending:
            return self._create()
        return self._orders.GetOrder(orders_pb.GetOrderRequest(id=self._pending[-1]), timeout=self._deadline)

    def _confirm(self) -> "grpc.aio.UnaryUnaryCall[Any, Any]":
        if not self._pending:
            return self._create()
        request = orders_pb.ConfirmOrderRequest(id=self._pending.pop(), request_id=self._request_id())
        return self._orders.ConfirmOrder(request, timeout=self._deadline)

    def _grant(self) -> "grpc.aio.UnaryUnaryCall[Any, Any]":
        request = users_pb.GrantCreditRequest(
            user_id=self._user_id, amount=Money(currency_code="EUR", units=1), request_id=self._request_id()
        )
        return self._users.GrantCredit(request, timeout=self._deadline)


async def make_calls(
    signals: Signals, port: int, user_ids: Sequence[str], seed: int, *, deadline: float = 10, pause: float = 0
) -> Seen:
    """Make calls about each user, one after the other, until told to stop, without retries; counts the calls.

    Args:
        signals: from `apart`.
        port: of the server.
        user_ids: one for each caller.
        seed: of what is random.
        deadline: of each call, in seconds.
        pause: seconds between two calls of a caller.
    """
    seen = Seen()

    async def call(channel: grpc.aio.Channel, number: int) -> None:
        caller = Caller(channel, user_ids[number], Random(seed + number), deadline)
        while not signals.stop.is_set():
            start, failure = time.monotonic(), None
            try:
                caller.made(await caller.start())
            except grpc.aio.AioRpcError as error:
                found = failure_of(error)
                failure = found.reason or found.code.name
            seen.note(start, failure)
            signals.count()
            if pause:
                await asyncio.sleep(pause)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.gather(*(call(channel, number) for number in range(len(user_ids))))
    return seen


async def cancel_calls(signals: Signals, port: int, user_ids: Sequence[str], seed: int, *, times: int) -> Counter[str]:
    """Make calls about each user and cancel each after a random time, until so many were cancelled.

    Returns how many calls ended as OK, as CANCELLED, or with another code and message.
    """
    ended: Counter[str] = Counter()
    # How long calls take that are not cancelled, in seconds.
    typical = 0.01

    async def call(channel: grpc.aio.Channel, number: int) -> None:
        nonlocal typical
        random = Random(seed + number)
        caller = Caller(channel, user_ids[number], random, 10)
        while ended["CANCELLED"] < times and not signals.stop.is_set():
            running, start = caller.start(), time.monotonic()
            if random.random() < _MEASURED:
                try:
                    caller.made(await running)
                except grpc.aio.AioRpcError as error:
                    ended[f"{error.code().name}: {error.details()}"] += 1
                typical += _MEASURED * (time.monotonic() - start - typical)
            else:
                # Before it was sent, while it waits in a queue, while it runs, or after it has ended.
                await asyncio.sleep(random.uniform(0, 1.5 * typical))
                running.cancel()
                code = (await running.code()).name
                ended[code if code in {"OK", "CANCELLED"} else f"{code}: {await running.details()}"] += 1
            signals.count()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.gather(*(call(channel, number) for number in range(len(user_ids))))
    return ended
