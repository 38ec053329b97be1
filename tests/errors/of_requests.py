"""Requests that are wrong themselves: the examples of docs/errors/requests.md."""

from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
from commerce.orders.v1.order_pb2 import OrderItem
from commerce.users.v1.user_pb2 import User
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from tests.errors.world import World, example
from tests.support.clients import item, new_order
from tests.support.requests import euros
from tests.support.watching import watch_orders

MADE_UP = "made-up"


@example("MALFORMED_REQUEST")
async def bytes_that_are_no_request(world: World) -> None:
    call: Any = world.own.clients.channel.unary_unary("/commerce.users.v1.UserService/GetUser")
    await call(b"\x1a\x04\xff\xff\xff\xff")


@example("INVALID_FIELD")
async def two_wrong_fields(world: World) -> None:
    user = await world.own.clients.create_user()
    order = new_order(user.id, items=[item("anvil", 0, 10)], external_ref="x" * 101)
    await world.own.clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=order))


@example("INVALID_UPDATE_MASK")
async def a_mask_with_an_unknown_field(world: World) -> None:
    user = await world.own.clients.create_user()
    request = users_pb.UpdateUserRequest(user=User(id=user.id), update_mask=FieldMask(paths=["nickname"]))
    await world.own.clients.users.UpdateUser(request)


@example("INVALID_PAGE_TOKEN")
async def a_page_token_that_is_made_up(world: World) -> None:
    await world.own.clients.users.ListUsers(users_pb.ListUsersRequest(page_token=MADE_UP))


@example("REQUEST_ID_REUSED")
async def another_request_with_the_same_id(world: World) -> None:
    user, request_id = await world.own.clients.create_user(), str(uuid4())
    for amount in (euros(5), euros(6)):
        request = users_pb.GrantCreditRequest(user_id=user.id, amount=amount, request_id=request_id)
        await world.own.clients.users.GrantCredit(request)


async def _order(world: World, *items: OrderItem) -> None:
    user = await world.own.clients.create_user()
    await world.own.clients.create_order(user.id, items=items)


@example("UNKNOWN_CURRENCY")
async def a_currency_that_does_not_exist(world: World) -> None:
    await _order(world, item("anvil", 1, 10, currency="EUX"))


@example("MIXED_CURRENCIES")
async def two_currencies(world: World) -> None:
    await _order(world, item("anvil", 1, 10), item("rocket", 1, 10, currency="CHF"))


@example("TOO_MANY_DECIMALS")
async def half_a_yen(world: World) -> None:
    await _order(world, item("anvil", 1, 10, 500_000_000, currency="JPY"))


@example("AMOUNT_OUT_OF_RANGE")
async def a_negative_price(world: World) -> None:
    price = Money(currency_code="EUR", units=-1)
    await _order(world, OrderItem(product_id="anvil", name="Anvil", quantity=1, unit_price=price))


@example("INVALID_CURSOR")
async def a_cursor_that_is_made_up(world: World) -> None:
    async with watch_orders(world.own.clients, cursor=MADE_UP) as stream:
        await stream.next()
