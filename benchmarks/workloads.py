"""Define workloads: endless calls on the data of `benchmarks.data`, each with bytes that its reply must contain.

    calls = WORKLOADS["GetUser"].grpc(Data(users=100_000, orders=200_000), Random(1))

Keys are picked at random, the same ones for the same seed; request ids are always new. Calls list orders of regulars
only, and place orders for other users only, so that the pages do not change.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from math import gcd
from random import Random
from typing import NamedTuple
from uuid import uuid4

from commerce.orders.v1.order_pb2 import ORDER_STATUS_CONFIRMED, ORDER_STATUS_PENDING, Order, OrderItem
from commerce.orders.v1.order_service_pb2 import ConfirmOrderRequest, CreateOrderRequest, ListOrdersRequest
from commerce.users.v1.user_service_pb2 import BatchGetUsersRequest, GetUserRequest
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from benchmarks.data import Data

PAGE_SIZE = 50
BATCH_SIZE = 100
_CURRENCY = "EUR"
_NANOS_OF_A_CENT = 10_000_000


class Call(NamedTuple):
    """A call; the path is that of a gRPC method or, for HTTP/1.1, `GET` or `POST` and a target."""

    path: str
    # A serialized message, or JSON.
    body: bytes
    # Bytes that the message or body of the reply must contain.
    expect: bytes


Calls = Callable[[Data, Random], Iterator[Call]]


@dataclass(frozen=True)
class Workload:
    """The calls of one kind, for each protocol."""

    grpc: Calls
    # None if the peer that uses JSON does not implement them.
    http: Calls | None = None


def _user(method: str, request: Message, expect: str) -> Call:
    return Call(f"/commerce.users.v1.UserService/{method}", request.SerializeToString(), expect.encode())


def _order(method: str, request: Message, expect: bytes) -> Call:
    return Call(f"/commerce.orders.v1.OrderService/{method}", request.SerializeToString(), expect)


def _get_user(data: Data, random: Random) -> Iterator[Call]:
    while True:
        user_id = data.user_id(random.randint(1, data.users))
        yield _user("GetUser", GetUserRequest(id=user_id), user_id)


def _get_user_http(data: Data, random: Random) -> Iterator[Call]:
    while True:
        user_id = data.user_id(random.randint(1, data.users))
        yield Call(f"GET /users/{user_id}", b"", user_id.encode())


def _batch_get_users(data: Data, random: Random) -> Iterator[Call]:
    while True:
        ids = [data.user_id(random.randint(1, data.users)) for _ in range(BATCH_SIZE)]
        yield _user("BatchGetUsers", BatchGetUsersRequest(ids=ids), ids[-1])


def _list_orders(data: Data, random: Random) -> Iterator[Call]:
    while True:
        user = random.randint(1, data.regulars)
        request = ListOrdersRequest(user_id=data.user_id(user), page_size=PAGE_SIZE)
        yield _order("ListOrders", request, _last_on_page(data, user))


def _list_orders_http(data: Data, random: Random) -> Iterator[Call]:
    while True:
        user = random.randint(1, data.regulars)
        target = f"/orders?user_id={data.user_id(user)}&page_size={PAGE_SIZE}"
        yield Call(f"GET {target}", b"", _last_on_page(data, user))


def _last_on_page(data: Data, user: int) -> bytes:
    return data.order_id(data.order_of_regular(user, PAGE_SIZE)).encode()


def _create_order(data: Data, random: Random, *, with_request_id: bool = False) -> Iterator[Call]:
    while True:
        user_id, items = _new_order(data, random)
        order = Order(user_id=user_id)
        for product_id, quantity, cents in items:
            units, rest = divmod(cents, 100)
            price = Money(currency_code=_CURRENCY, units=units, nanos=rest * _NANOS_OF_A_CENT)
            name = f"Part number {product_id}"
            order.items.append(OrderItem(product_id=product_id, name=name, quantity=quantity, unit_price=price))
        request = CreateOrderRequest(order=order, request_id=str(uuid4()) if with_request_id else "")
        # Protobuf writes fields in the order of their numbers, so user_id and status are adjacent in the reply.
        placed = Order(user_id=user_id, status=ORDER_STATUS_PENDING)
        yield _order("CreateOrder", request, placed.SerializeToString())


def _create_order_with_request_id(data: Data, random: Random) -> Iterator[Call]:
    return _create_order(data, random, with_request_id=True)


def _create_order_http(data: Data, random: Random, *, with_request_id: bool = False) -> Iterator[Call]:
    while True:
        user_id, items = _new_order(data, random)
        order: dict[str, object] = {"user_id": user_id, "currency": _CURRENCY}
        order["items"] = [
            {
                "product_id": product_id,
                "name": f"Part number {product_id}",
                "quantity": quantity,
                "unit_price": f"{cents // 100}.{cents % 100:02d}",
            }
            for product_id, quantity, cents in items
        ]
        if with_request_id:
            order["request_id"] = str(uuid4())
        yield Call("POST /orders", json.dumps(order).encode(), user_id.encode())


def _create_order_with_request_id_http(data: Data, random: Random) -> Iterator[Call]:
    return _create_order_http(data, random, with_request_id=True)


def _new_order(data: Data, random: Random) -> tuple[str, list[tuple[str, int, int]]]:
    """Return the id of a user, and the product, quantity and price in cents of three items to order."""
    user_id = data.user_id(random.randint(data.regulars + 1, data.users))
    return user_id, [(f"part-{random.randint(1, 10_000)}", number, random.randint(1, 99_999)) for number in (1, 2, 3)]


def _confirm_order(data: Data, random: Random) -> Iterator[Call]:
    """Yield one call for each PENDING order, to confirm it; these calls are not endless."""
    start, step = random.randrange(data.orders), random.randrange(data.orders)
    # With a step that is coprime to the number of orders, the loop visits every order once.
    while gcd(step, data.orders) != 1:
        step += 1
    for index in range(data.orders):
        order = (start + index * step) % data.orders + 1
        if data.status_of(order) == "PENDING":
            confirmed = Order(
                id=data.order_id(order),
                order_number=data.order_number(order),
                user_id=data.user_id(data.user_of(order)),
                status=ORDER_STATUS_CONFIRMED,
            )
            request = ConfirmOrderRequest(id=confirmed.id)
            yield _order("ConfirmOrder", request, confirmed.SerializeToString())


def _mixed(get_user: Calls, list_orders: Calls, create_order: Calls) -> Calls:
    """Return a mixture of calls with 80 % reads."""

    def mixed(data: Data, random: Random) -> Iterator[Call]:
        users, pages, orders = (calls(data, random) for calls in (get_user, list_orders, create_order))
        for calls in cycle((users, users, pages, users, orders)):
            yield next(calls)

    return mixed


WORKLOADS = {
    "GetUser": Workload(_get_user, _get_user_http),
    "BatchGetUsers": Workload(_batch_get_users),
    "CreateOrder": Workload(_create_order, _create_order_http),
    "CreateOrderWithRequestId": Workload(_create_order_with_request_id, _create_order_with_request_id_http),
    "ListOrders": Workload(_list_orders, _list_orders_http),
    "ConfirmOrder": Workload(_confirm_order),
    "Mixed": Workload(
        _mixed(_get_user, _list_orders, _create_order_with_request_id),
        _mixed(_get_user_http, _list_orders_http, _create_order_with_request_id_http),
    ),
}
