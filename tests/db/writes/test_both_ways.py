"""Whichever way an order is written, as one statement or in a transaction, the same is stored, and that is answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order
from google.type.money_pb2 import Money
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.clients import item, new_order
from tests.support.encoded_orders import encoded_orders, stored_orders
from tests.support.methods import call
from tests.support.requests import transition_request
from tests.support.servers import OwnServer, own_server

TRANSITIONS = ("Confirm", "Process", "Ship", "Deliver", "Cancel")


@dataclass(frozen=True)
class Placed:
    """Places orders at the same time, so that they can share a statement."""

    user: int
    units: Sequence[int]
    currency: str
    pay_with_credit: bool
    with_request_id: bool


@dataclass(frozen=True)
class Updated:
    order: int
    units: int
    currency: str


@dataclass(frozen=True)
class Moved:
    """Changes the status of an order, or of two orders at the same time."""

    orders: Sequence[int]
    transition: str
    with_request_id: bool


@dataclass(frozen=True)
class Tagged:
    order: int
    method: str
    tag: str


@dataclass(frozen=True)
class Transferred:
    giver: int


Step = Placed | Updated | Moved | Tagged | Transferred

numbers = st.integers(0, 5)
units = st.sampled_from([0, 0, 1, 60, 1000])
currencies = st.sampled_from(["EUR", "EUR", "USD"])
steps = st.one_of(
    st.builds(
        Placed, st.integers(0, 1), st.lists(units, min_size=1, max_size=3), currencies, st.booleans(), st.booleans()
    ),
    st.builds(Updated, numbers, units, currencies),
    st.builds(Moved, st.lists(numbers, min_size=1, max_size=2), st.sampled_from(TRANSITIONS), st.booleans()),
    st.builds(Tagged, numbers, st.sampled_from(["Add", "Remove"]), st.sampled_from(["big", "heavy"])),
    st.builds(Transferred, st.integers(0, 1)),
)


@dataclass
class Shop:
    """Two users with credit, and the orders that were placed."""

    own: OwnServer
    users: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)

    async def open(self) -> None:
        for _ in range(2):
            user = await self.own.clients.create_user()
            for currency in ("EUR", "USD"):
                amount = Money(currency_code=currency, units=100)
                await self.own.clients.users.GrantCredit(users_pb.GrantCreditRequest(user_id=user.id, amount=amount))
            self.users.append(user.id)

    async def take(self, step: Step) -> list[object]:
        """Run a step and return its answers, without ids and times."""
        requests = self._requests(step)
        if isinstance(step, Placed) and step.pay_with_credit:
            # One after the other: together, it would depend on their order which of them finds too little credit.
            return [answer for request in requests for answer in await self._call([request])]
        return await self._call(requests)

    async def _call(self, requests: Sequence[tuple[str, Any]]) -> list[object]:
        calls = (call(self.own.clients.channel, *request) for request in requests)
        return [await self._answer(answer) for answer in await asyncio.gather(*calls, return_exceptions=True)]

    def _requests(self, step: Step) -> list[tuple[str, Any]]:
        if isinstance(step, Placed):
            return [("CreateOrder", self._placing(step, units)) for units in step.units]
        if isinstance(step, Transferred):
            giver, taker = self.users[step.giver], self.users[1 - step.giver]
            return [("TransferOrders", pb.TransferOrdersRequest(from_user_id=giver, to_user_id=taker))]
        if not self.orders:
            return []
        if isinstance(step, Updated):
            changed = Order(id=self._order(step.order), items=[item("lamp", 1, step.units, currency=step.currency)])
            return [("UpdateOrder", pb.UpdateOrderRequest(order=changed))]
        if isinstance(step, Tagged):
            method = f"{step.method}OrderTags"
            return [(method, getattr(pb, f"{method}Request")(id=self._order(step.order), tags=[step.tag]))]
        ids = dict.fromkeys(self._order(order) for order in step.orders)
        requests = [transition_request(step.transition, order) for order in ids]
        for request in requests:
            request.request_id = str(uuid4()) if step.with_request_id else ""
        return [(f"{step.transition}Order", request) for request in requests]

    def _placing(self, step: Placed, units: int) -> pb.CreateOrderRequest:
        items = [item("anvil", 1, units, currency=step.currency)]
        request = pb.CreateOrderRequest(
            order=new_order(self.users[step.user], items=items), pay_with_credit=step.pay_with_credit
        )
        request.request_id = str(uuid4()) if step.with_request_id else ""
        return request

    def _order(self, number: int) -> str:
        return self.orders[number % len(self.orders)]

    async def _answer(self, answer: Any) -> object:
        if isinstance(answer, grpc.aio.AioRpcError):
            return answer.code()
        if isinstance(answer, BaseException):
            raise answer
        if not answer.DESCRIPTOR.fields_by_name.get("order"):
            return str(answer)
        order = answer.order
        if order.id not in self.orders:
            self.orders.append(order.id)
        read = (await self.own.clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order
        assert read == order
        return order.status, order.etag, order.credit.state, order.total_amount.units, list(order.tags)

    async def stored(self) -> object:
        """Return the rows and events of the orders and the credit, without ids and times."""
        connection = self.own.connection
        stored, encoded = await stored_orders(connection), await encoded_orders(connection)
        names = {name: index for index, name in enumerate([*self.users, *self.orders])}
        for order_id in self.orders:
            assert encoded.get(order_id, stored[order_id]) == stored[order_id]
        columns = "status, currency, total_amount, credit_state, credit_expire_time IS NULL AS never, version"
        rows = [
            dict(
                await connection.fetchrow(
                    f"SELECT {columns}, user_id::text, credit_user_id::text, message IS NULL AS unencoded "
                    "FROM orders WHERE id = $1",
                    order_id,
                )
            )
            for order_id in self.orders
        ]
        for row in rows:
            row["user_id"] = names[row["user_id"]]
            row["credit_user_id"] = row["credit_user_id"] and names[row["credit_user_id"]]
        events = [
            (names[row["aggregate_id"]], row["type"], row["status"], names[row["user_id"]], self._changes(row, names))
            for order_id in self.orders
            for row in await connection.fetch(
                "SELECT aggregate_id::text, type, status, user_id::text, changes::text FROM events "
                "WHERE aggregate_id = $1 ORDER BY position",
                order_id,
            )
        ]
        credit = [
            tuple(row)
            for user_id in self.users
            for row in await connection.fetch(
                "SELECT currency, available, held FROM credit_accounts WHERE user_id = $1 ORDER BY currency", user_id
            )
        ]
        return rows, events, credit

    def _changes(self, row: Any, names: dict[str, int]) -> list[tuple[str, ...]]:
        changes = json.loads(row["changes"])
        return [tuple(str(names.get(value, value)) for value in change.values()) for change in changes]


@pytest.fixture(scope="module")
async def servers(postgres_url: str, template_url: str) -> AsyncIterator[list[OwnServer]]:
    """A server with the fast path, and one without."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(own_server(postgres_url, template_url, fast_path=fast))
            for fast in (True, False)
        ]


FREE = Placed(0, [0], "EUR", pay_with_credit=True, with_request_id=False)


@settings(deadline=None, max_examples=15)
@example([FREE, Updated(0, 60, "EUR"), Moved([0], "Confirm", with_request_id=False)])
@given(st.lists(steps, min_size=1, max_size=8))
async def test_both_ways_store_and_answer_the_same(servers: list[OwnServer], history: list[Step]) -> None:
    shops = [Shop(own) for own in servers]
    for shop in shops:
        await shop.open()
    for step in history:
        fast, slow = [await shop.take(step) for shop in shops]
        assert fast == slow
    stored_fast, stored_slow = [await shop.stored() for shop in shops]
    assert stored_fast == stored_slow
