"""Use cases of orders."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from service.application.credit import adjust_hold, give_back_for_orders, hold_for_order, spend_for_order
from service.application.etags import check_etag
from service.application.ports.unit_of_work import EncodedOrder, UnitOfWork
from service.domain.errors import InvalidField
from service.domain.events import Event, FieldChange
from service.domain.orders import Order, OrderFields, OrderHeader


async def create_order(
    uow: UnitOfWork, user_id: UUID, fields: OrderFields, now: datetime, *, pay_with_credit: bool = False
) -> Order:
    """Place an order, and hold credit for its total if the user's credit pays for it.

    Raises:
        UserNotFound, UserNotActive: the user cannot place orders.
        InsufficientCredit: the user has less than the total.
        OrderAlreadyExists: raised by the flush, if the external reference is in use.
        InvalidArgument: see `Order.place`.
    """
    # Before the transaction begins, because this may need another connection.
    number = await uow.orders.next_number()
    # This also prevents the user from being deactivated or deleted between this check and the commit.
    await uow.users.require_active(user_id, "place orders")
    order = Order.place(user_id, number, fields, now)
    if pay_with_credit:
        await hold_for_order(uow, order, now)
    await uow.orders.add(order)
    return order


async def update_order(uow: UnitOfWork, order_id: UUID, etag: str, fields: OrderFields, now: datetime) -> Order:
    """Change a PENDING order, and the credit held for it.

    Raises:
        OrderNotFound, EtagMismatch, InsufficientCredit
        OrderAlreadyExists: raised by the flush, if the external reference is in use.
        OrderNotPending, InvalidArgument: see `Order.update`.
    """
    order = await _for_update(uow, order_id, etag)
    old_total = order.total
    order.update(fields, now)
    await adjust_hold(uow, order, old_total, now)
    return order


async def confirm_order(uow: UnitOfWork, order_id: UUID, etag: str, now: datetime) -> Order | EncodedOrder:
    """Confirm an order, and spend its credit; raises like `change_order`, and InsufficientCredit."""
    order = await _for_transition(uow, order_id, etag)
    order.confirm(now)
    await spend_for_order(uow, order, now)
    return order


async def cancel_order(uow: UnitOfWork, order_id: UUID, etag: str, reason: str, now: datetime) -> Order | EncodedOrder:
    """Cancel an order, and give its credit back; raises like `change_order`."""
    order = await _for_transition(uow, order_id, etag)
    order.cancel(reason, now)
    await give_back_for_orders(uow, [order], now)
    return order


async def transfer_orders(uow: UnitOfWork, from_user_id: UUID, to_user_id: UUID, now: datetime) -> int:
    """Give all orders of one user to another, and return how many there were.

    Raises:
        InvalidField: both ids are of the same user.
        UserNotFound, UserNotActive: one of the users does not exist, or the receiver is not ACTIVE.
        OrderAlreadyExists: both have an order with the same external reference.
    """
    if from_user_id == to_user_id:
        raise InvalidField.at("to_user_id", "must differ from from_user_id")
    for user_id in sorted((from_user_id, to_user_id)):
        if user_id == from_user_id:
            # This lock prevents new orders of the user, which the transfer would miss.
            await uow.users.get_for_update(user_id)
        else:
            (await uow.users.get_for_share(user_id)).require_active("be given orders")
    changes = (FieldChange("user_id", str(from_user_id), str(to_user_id)),)
    transferred = await uow.orders.transfer(from_user_id, to_user_id, now)
    uow.record(
        Event(Order.aggregate_type, order_id, "TRANSFERRED", update_time, changes, user_id=to_user_id, status=status)
        for order_id, status, update_time in transferred
    )
    return len(transferred)


async def add_order_tags(uow: UnitOfWork, order_id: UUID, etag: str, names: Sequence[str], now: datetime) -> Order:
    """Add tags by their normalised names; raises like `change_order`, and InvalidField if there are too many."""
    order = await _for_update(uow, order_id, etag)
    order.add_tags(await uow.orders.tags(names), now)
    return order


async def transition_order(
    uow: UnitOfWork, order_id: UUID, etag: str, transition: Callable[[OrderHeader], None]
) -> Order | EncodedOrder:
    """Apply a transition of the order; raises like `change_order`."""
    order = await _for_transition(uow, order_id, etag)
    transition(order)
    return order


async def change_order(uow: UnitOfWork, order_id: UUID, etag: str, change: Callable[[Order], None]) -> Order:
    """Apply a method of the order; raises OrderNotFound, EtagMismatch and the errors of the method."""
    order = await _for_update(uow, order_id, etag)
    change(order)
    return order


async def _for_update(uow: UnitOfWork, order_id: UUID, etag: str) -> Order:
    order = await uow.orders.get_for_update(order_id)
    check_etag(order, etag)
    return order


async def _for_transition(uow: UnitOfWork, order_id: UUID, etag: str) -> Order | EncodedOrder:
    order = await uow.orders.get_for_transition(order_id)
    check_etag(order, etag)
    return order
