"""Calls that what is stored does not allow: the examples of docs/errors/resources.md."""

from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User

from tests.errors.world import World, example
from tests.support.clients import item, new_user
from tests.support.passwords import PASSWORD
from tests.support.requests import euros, order_in, user_in


@example("USER_NOT_FOUND")
async def a_username_that_no_user_has(world: World) -> None:
    await world.own.clients.users.GetUser(users_pb.GetUserRequest(username="grace"))


@example("ORDER_NOT_FOUND")
async def an_order_number_that_no_order_has(world: World) -> None:
    await world.own.clients.orders.GetOrder(orders_pb.GetOrderRequest(order_number="ORD-99999999"))


@example("NOTE_NOT_FOUND")
async def an_id_that_no_note_has(world: World) -> None:
    await world.own.clients.orders.DeleteOrderNote(orders_pb.DeleteOrderNoteRequest(id=str(uuid4())))


@example("USER_ALREADY_EXISTS")
async def an_address_that_is_taken(world: World) -> None:
    user = await world.own.clients.create_user()
    request = users_pb.CreateUserRequest(user=new_user(email=user.email), password=PASSWORD)
    await world.own.clients.users.CreateUser(request)


@example("ORDER_ALREADY_EXISTS")
async def a_cart_that_is_ordered_twice(world: World) -> None:
    user = await world.own.clients.create_user()
    for _ in range(2):
        await world.own.clients.create_order(user.id, external_ref="cart-1")


@example("ETAG_MISMATCH")
async def a_change_of_what_has_changed(world: World) -> None:
    read = await world.own.clients.create_user()
    for name in ("Ada King", "Ada Lovelace"):
        user = User(id=read.id, full_name=name, etag=read.etag)
        await world.own.clients.users.UpdateUser(users_pb.UpdateUserRequest(user=user))


@example("ILLEGAL_TRANSITION")
async def an_order_shipped_before_it_is_confirmed(world: World) -> None:
    order = await order_in(world.own.clients, "PENDING")
    await world.own.clients.orders.ShipOrder(orders_pb.ShipOrderRequest(id=order.id, tracking_number="1Z 999"))


@example("USER_NOT_ACTIVE")
async def an_order_of_an_inactive_user(world: World) -> None:
    user = await user_in(world.own.clients, "INACTIVE")
    await world.own.clients.create_order(user.id)


@example("USER_DELETED")
async def a_change_of_a_deleted_user(world: World) -> None:
    user = await user_in(world.own.clients, "DELETED")
    request = users_pb.UpdateUserRequest(user=User(id=user.id, full_name="Ada King"))
    await world.own.clients.users.UpdateUser(request)


@example("ORDER_NOT_PENDING")
async def a_change_of_a_confirmed_order(world: World) -> None:
    order = await order_in(world.own.clients, "CONFIRMED")
    changed = Order(id=order.id, items=[item("anvil", 3, 10)])
    await world.own.clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=changed))


@example("INSUFFICIENT_CREDIT")
async def an_order_for_more_than_the_credit(world: World) -> None:
    user = await world.own.clients.create_user()
    await world.own.clients.users.GrantCredit(users_pb.GrantCreditRequest(user_id=user.id, amount=euros(5)))
    order = Order(user_id=user.id, items=[item("anvil", 2, 10)])
    await world.own.clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=order, pay_with_credit=True))


@example("USER_IN_USE")
async def a_purge_of_a_user_with_an_order(world: World) -> None:
    order = await order_in(world.own.clients, "CONFIRMED")
    await world.own.clients.users.PurgeUser(users_pb.PurgeUserRequest(id=order.user_id))
