from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from commerce.orders.v1.order_pb2 import OrderStatus

from service.application.orders import change_order, create_order
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import change_user, create_user
from service.db.database import Database
from service.domain.errors import EtagMismatch, IllegalTransition, OrderNotFound, UserNotActive, UserNotFound
from service.domain.money import Money
from service.domain.orders import ItemFields, Order, OrderFields
from service.domain.users import User
from service.passwords import Argon2Passwords
from service.rpc.messages.orders import order_message
from tests.support.passwords import PASSWORD

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FIELDS: OrderFields = {"items": [ItemFields("anvil", "Anvil", 2, Money("EUR", Decimal("10.50")))]}


def unit_of_work(store: Database) -> AbstractAsyncContextManager[UnitOfWork]:
    return store.unit_of_work(actor="tests", request=None, time_left=lambda: 30.0)


@pytest.fixture
async def user(store: Database, passwords: Argon2Passwords) -> User:
    name = f"u{uuid4().hex[:20]}"
    async with unit_of_work(store) as uow:
        user = await create_user(uow, passwords, {"email": f"{name}@example.com", "username": name}, PASSWORD, NOW)
        await uow.commit(b"")
    return user


async def placed(store: Database, user: User) -> Order:
    async with unit_of_work(store) as uow:
        order = await create_order(uow, user.id, FIELDS, NOW)
        await uow.commit(b"")
    return order


async def test_an_active_user_places_an_order(store: Database, user: User) -> None:
    order = await placed(store, user)
    (row,) = await store.order_queries.by_ids([str(order.id)])
    read = order_message(row)
    assert (read.user_id, read.order_number) == (str(user.id), order.order_number)
    assert (read.status, read.total_amount.units) == (OrderStatus.ORDER_STATUS_PENDING, 21)


async def test_a_missing_user_places_no_order(store: Database) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(UserNotFound):
            await create_order(uow, uuid4(), FIELDS, NOW)


@pytest.mark.parametrize("place", ["inactive", "deleted"])
async def test_only_an_active_user_places_an_order(store: Database, user: User, place: str) -> None:
    async with unit_of_work(store) as uow:
        transition = User.deactivate if place == "inactive" else User.delete
        await change_user(uow, user.id, "", lambda user: transition(user, NOW))
        with pytest.raises(UserNotActive):
            await create_order(uow, user.id, FIELDS, NOW)


async def test_a_change_without_a_commit_is_not_stored(store: Database, user: User) -> None:
    order = await placed(store, user)
    async with unit_of_work(store) as uow:
        await change_order(uow, order.id, "", lambda order: order.confirm(NOW))
        await uow.flush()
    (row,) = await store.order_queries.by_ids([str(order.id)])
    read = order_message(row)
    assert (read.status, read.etag) == (OrderStatus.ORDER_STATUS_PENDING, "v1")


async def test_a_stale_etag_prevents_a_change(store: Database, user: User) -> None:
    order = await placed(store, user)
    tried: list[Order] = []
    async with unit_of_work(store) as uow:
        with pytest.raises(EtagMismatch):
            await change_order(uow, order.id, "v2", tried.append)
        await change_order(uow, order.id, "v1", tried.append)
    assert [found.id for found in tried] == [order.id]


async def test_a_stale_etag_is_reported_before_other_failures(store: Database, user: User) -> None:
    order = await placed(store, user)
    async with unit_of_work(store) as uow:
        with pytest.raises(EtagMismatch):
            await change_order(uow, order.id, "v2", lambda order: order.deliver(NOW))
        with pytest.raises(IllegalTransition):
            await change_order(uow, order.id, "v1", lambda order: order.deliver(NOW))


async def test_a_missing_order_cannot_be_changed(store: Database) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(OrderNotFound):
            await change_order(uow, uuid4(), "", lambda order: order.confirm(NOW))
