"""A valid request for every method, and users and orders in every state."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from google.type.money_pb2 import Money

from tests.support.clients import Clients, new_order, new_user
from tests.support.methods import call, request_class
from tests.support.passwords import PASSWORD

# The transitions that lead to each status.
_WAY = ("Confirm", "Process", "Ship", "Deliver")
_STEPS = {
    "PENDING": (),
    "CONFIRMED": _WAY[:1],
    "PROCESSING": _WAY[:2],
    "SHIPPED": _WAY[:3],
    "DELIVERED": _WAY,
    "CANCELLED": ("Cancel",),
}


def transition_request(transition: str, order_id: str, **fields: Any) -> Any:
    """Return the request for a transition of an order."""
    required = {"Ship": {"tracking_number": "TRACK-1"}, "Cancel": {"reason": "changed my mind"}}.get(transition, {})
    return request_class(f"{transition}Order")(id=order_id, **{**required, **fields})


async def order_in(clients: Clients, status: str, **fields: Any) -> Order:
    """Create an order, and bring it to a status."""
    user = await clients.create_user()
    order = await clients.create_order(user.id, **fields)
    for transition in _STEPS[status]:
        order = (await call(clients.channel, f"{transition}Order", transition_request(transition, order.id))).order
    return order


async def user_in(clients: Clients, state: str) -> User:
    """Create a user, and bring it to a state; a DELETED user was ACTIVE before."""
    user = await clients.create_user()
    if state == "INACTIVE":
        user = (await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user.id))).user
    if state == "DELETED":
        user = (await clients.users.DeleteUser(users_pb.DeleteUserRequest(id=user.id))).user
    return user


def _of_user(method: str, state: str = "ACTIVE", **fields: Any) -> Callable[[Clients], Awaitable[Any]]:
    async def build(clients: Clients) -> Any:
        return request_class(method)(id=(await user_in(clients, state)).id, **fields)

    return build


def _of_order(transition: str, status: str) -> Callable[[Clients], Awaitable[Any]]:
    async def build(clients: Clients) -> Any:
        return transition_request(transition, (await order_in(clients, status)).id)

    return build


async def _create_user(_clients: Clients) -> Any:
    return users_pb.CreateUserRequest(user=new_user(superuser=True), password=PASSWORD)


async def _batch_get_users(clients: Clients) -> Any:
    return users_pb.BatchGetUsersRequest(ids=[(await clients.create_user()).id, (await clients.create_user()).id])


async def _list_users(clients: Clients) -> Any:
    await clients.create_user()
    return users_pb.ListUsersRequest(page_size=10)


async def _update_user(clients: Clients) -> Any:
    user = await clients.create_user()
    name = f"new{uuid4().hex[:20]}"
    new = User(id=user.id, email=f"{name}@example.com", username=name, full_name="Grace Hopper", superuser=True)
    return users_pb.UpdateUserRequest(user=new)


async def _verify_password(clients: Clients) -> Any:
    return users_pb.VerifyPasswordRequest(email=(await clients.create_user()).email, password=PASSWORD)


async def _create_order(clients: Clients) -> Any:
    user = await clients.create_user()
    order = new_order(user.id, external_ref="cart-1", metadata={"channel": "web", "basket": "7"})
    return orders_pb.CreateOrderRequest(order=order)


async def _get_order(clients: Clients) -> Any:
    return orders_pb.GetOrderRequest(id=(await order_in(clients, "PENDING")).id)


async def _batch_get_orders(clients: Clients) -> Any:
    user = await clients.create_user()
    return orders_pb.BatchGetOrdersRequest(ids=[(await clients.create_order(user.id)).id for _ in range(2)])


async def _list_orders(clients: Clients) -> Any:
    return orders_pb.ListOrdersRequest(user_id=(await order_in(clients, "PENDING")).user_id)


async def _update_order(clients: Clients) -> Any:
    order = await order_in(clients, "PENDING")
    items = new_order(order.user_id).items[:2]
    new = Order(id=order.id, items=items, external_ref="cart-2", metadata={"channel": "phone"})
    return orders_pb.UpdateOrderRequest(order=new)


async def _list_order_events(clients: Clients) -> Any:
    return orders_pb.ListOrderEventsRequest(order_id=(await order_in(clients, "CONFIRMED")).id)


def euros(units: int) -> Money:
    """Return an amount of money."""
    return Money(currency_code="EUR", units=units)


async def user_with_credit(clients: Clients) -> str:
    """Create a user with 100 EUR of credit and return its id."""
    user = await clients.create_user()
    await clients.users.GrantCredit(users_pb.GrantCreditRequest(user_id=user.id, amount=euros(100)))
    return user.id


async def note_in(clients: Clients, *, published: bool = False) -> OrderNote:
    """Write a note about an order."""
    order = await order_in(clients, "PENDING")
    note = OrderNote(order_id=order.id, author_id=order.user_id, body="fragile")
    written = (await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))).note
    if published:
        await clients.orders.PublishOrderNote(orders_pb.PublishOrderNoteRequest(id=written.id))
    return written


async def _get_credit_balance(clients: Clients) -> Any:
    return users_pb.GetCreditBalanceRequest(user_id=await user_with_credit(clients))


async def _grant_credit(clients: Clients) -> Any:
    return users_pb.GrantCreditRequest(user_id=await user_with_credit(clients), amount=euros(5), description="gift")


async def _transfer_credit(clients: Clients) -> Any:
    giver, taker = await user_with_credit(clients), await user_with_credit(clients)
    return users_pb.TransferCreditRequest(from_user_id=giver, to_user_id=taker, amount=euros(5), description="thanks")


async def _list_credit_entries(clients: Clients) -> Any:
    return users_pb.ListCreditEntriesRequest(user_id=await user_with_credit(clients))


async def _transfer_orders(clients: Clients) -> Any:
    order = await order_in(clients, "PENDING")
    return orders_pb.TransferOrdersRequest(from_user_id=order.user_id, to_user_id=(await clients.create_user()).id)


async def _get_order_statistics(clients: Clients) -> Any:
    return orders_pb.GetOrderStatisticsRequest(user_id=(await order_in(clients, "PENDING")).user_id)


async def _add_order_tags(clients: Clients) -> Any:
    return orders_pb.AddOrderTagsRequest(id=(await order_in(clients, "PENDING")).id, tags=[f"t{uuid4().hex[:12]}"])


async def _remove_order_tags(clients: Clients) -> Any:
    request = await _add_order_tags(clients)
    await clients.orders.AddOrderTags(request)
    return orders_pb.RemoveOrderTagsRequest(id=request.id, tags=request.tags)


async def _list_tags(clients: Clients) -> Any:
    return orders_pb.ListTagsRequest(prefix=(await _remove_order_tags(clients)).tags[0])


async def _create_order_note(clients: Clients) -> Any:
    order = await order_in(clients, "PENDING")
    note = OrderNote(order_id=order.id, author_id=order.user_id, body="fragile")
    return orders_pb.CreateOrderNoteRequest(note=note)


async def _update_order_note(clients: Clients) -> Any:
    note = await note_in(clients)
    return orders_pb.UpdateOrderNoteRequest(note=OrderNote(id=note.id, body="very fragile"))


async def _publish_order_note(clients: Clients) -> Any:
    return orders_pb.PublishOrderNoteRequest(id=(await note_in(clients)).id)


async def _delete_order_note(clients: Clients) -> Any:
    return orders_pb.DeleteOrderNoteRequest(id=(await note_in(clients)).id)


async def _list_order_notes(clients: Clients) -> Any:
    return orders_pb.ListOrderNotesRequest(order_id=(await note_in(clients, published=True)).order_id)


async def _search_users(clients: Clients) -> Any:
    return users_pb.SearchUsersRequest(query=(await clients.create_user()).username)


async def _search_order_notes(clients: Clients) -> Any:
    return orders_pb.SearchOrderNotesRequest(
        query="fragile", order_id=(await note_in(clients, published=True)).order_id
    )


# For every method, a function that builds a valid request, a new one each time.
GOOD_REQUESTS: dict[str, Callable[[Clients], Awaitable[Any]]] = {
    "CreateUser": _create_user,
    "GetUser": _of_user("GetUser"),
    "BatchGetUsers": _batch_get_users,
    "ListUsers": _list_users,
    "UpdateUser": _update_user,
    "DeactivateUser": _of_user("DeactivateUser"),
    "ReactivateUser": _of_user("ReactivateUser", "INACTIVE"),
    "DeleteUser": _of_user("DeleteUser"),
    "UndeleteUser": _of_user("UndeleteUser", "DELETED"),
    "SetPassword": _of_user("SetPassword", password="another password"),  # noqa: S106 - of a test's user
    "VerifyPassword": _verify_password,
    "CreateOrder": _create_order,
    "GetOrder": _get_order,
    "BatchGetOrders": _batch_get_orders,
    "ListOrders": _list_orders,
    "UpdateOrder": _update_order,
    "ConfirmOrder": _of_order("Confirm", "PENDING"),
    "ProcessOrder": _of_order("Process", "CONFIRMED"),
    "ShipOrder": _of_order("Ship", "PROCESSING"),
    "DeliverOrder": _of_order("Deliver", "SHIPPED"),
    "CancelOrder": _of_order("Cancel", "PENDING"),
    "ListOrderEvents": _list_order_events,
    "PurgeUser": _of_user("PurgeUser"),
    "GetCreditBalance": _get_credit_balance,
    "GrantCredit": _grant_credit,
    "TransferCredit": _transfer_credit,
    "ListCreditEntries": _list_credit_entries,
    "TransferOrders": _transfer_orders,
    "GetOrderStatistics": _get_order_statistics,
    "AddOrderTags": _add_order_tags,
    "RemoveOrderTags": _remove_order_tags,
    "ListTags": _list_tags,
    "CreateOrderNote": _create_order_note,
    "UpdateOrderNote": _update_order_note,
    "PublishOrderNote": _publish_order_note,
    "DeleteOrderNote": _delete_order_note,
    "ListOrderNotes": _list_order_notes,
    "SearchOrderNotes": _search_order_notes,
    "SearchUsers": _search_users,
}
