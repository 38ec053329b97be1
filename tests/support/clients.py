"""Clients of a server, and users and orders for them to create."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.type.money_pb2 import Money
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.support.passwords import PASSWORD

if TYPE_CHECKING:
    # Only the stub files have these types; at run time one class serves both kinds of channel.
    from commerce.orders.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from commerce.users.v1.user_service_pb2_grpc import UserServiceAsyncStub


@dataclass(frozen=True)
class Clients:
    """Stubs on one channel."""

    channel: grpc.aio.Channel
    users: "UserServiceAsyncStub"
    orders: "OrderServiceAsyncStub"
    health: Any

    async def create_user(self, **fields: Any) -> User:
        """Create a user with a unique e-mail and username."""
        request = users_pb.CreateUserRequest(user=new_user(**fields), password=PASSWORD)
        return (await self.users.CreateUser(request)).user

    async def create_order(self, user_id: str, **fields: Any) -> Order:
        """Create an order of three items."""
        request = orders_pb.CreateOrderRequest(order=new_order(user_id, **fields))
        return (await self.orders.CreateOrder(request)).order


@asynccontextmanager
async def connect(port: int, *, own_connection: bool = False) -> AsyncIterator[Clients]:
    """Open a channel to a server on this machine; channels share a connection unless `own_connection`."""
    options = [("grpc.use_local_subchannel_pool", int(own_connection))]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Clients(channel, UserServiceStub(channel), OrderServiceStub(channel), HealthStub(channel))


def new_user(**fields: Any) -> User:
    """Return a user to create, with a unique e-mail and username."""
    name = f"u{uuid4().hex[:20]}"
    return User(**{"email": f"{name}@example.com", "username": name, "full_name": "Ada Lovelace", **fields})


def new_order(user_id: str, **fields: Any) -> Order:
    """Return an order to create: 2 x 10.50 + 1 x 99 + 3 x 0.01 = 120.03 EUR."""
    items = [item("anvil", 2, 10, 500_000_000), item("rocket", 1, 99), item("bolt", 3, 0, 10_000_000)]
    return Order(**{"user_id": user_id, "items": items, **fields})


def item(product_id: str, quantity: int, units: int, nanos: int = 0, currency: str = "EUR") -> OrderItem:
    """Return an item to order."""
    price = Money(currency_code=currency, units=units, nanos=nanos)
    return OrderItem(product_id=product_id, name=product_id.title(), quantity=quantity, unit_price=price)
