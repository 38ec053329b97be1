"""Decisions about orders."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from service.application.etags import check_etag
from service.application.ports import UnitOfWork
from service.domain.orders import Order, OrderFields


async def create_order(uow: UnitOfWork, user_id: UUID, fields: OrderFields, now: datetime) -> Order:
    """Place an order.

    Raises:
        UserNotFound, UserNotActive: the user cannot order.
        OrderAlreadyExists: with the flush, for a used external reference.
        InvalidArgument: as `Order.place`.
    """
    # Shared lock: the user cannot be deactivated or deleted between this check and the commit.
    user = await uow.users.get_for_share(user_id)
    user.require_active()
    order = Order.place(user_id, await uow.orders.next_number(), fields, now)
    await uow.orders.add(order)
    return order


async def change_order(uow: UnitOfWork, order_id: UUID, etag: str, change: Callable[[Order], None]) -> Order:
    """Apply a method of the order; raises OrderNotFound, EtagMismatch and what the method raises."""
    order = await uow.orders.get_for_update(order_id)
    check_etag(order, etag)
    change(order)
    return order
