from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from commerce.orders.v1.order_pb2 import Order as OrderMessage
from commerce.orders.v1.order_pb2 import OrderStatus

from service.application.orders import (
    add_order_tags,
    cancel_order,
    change_order,
    confirm_order,
    create_order,
    transfer_orders,
    transition_order,
    update_order,
)
from service.application.ports.queries import Page
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import change_user
from service.db.database import Database
from service.domain.errors import (
    EtagMismatch,
    IllegalTransition,
    InvalidField,
    OrderNotFound,
    UserNotActive,
    UserNotFound,
)
from service.domain.money import Money
from service.domain.orders import ItemFields, Order, OrderFields, OrderHeader
from service.domain.users import User
from service.rpc.messages.orders import order_message
from tests.support.stores import NOW, add_user, unit_of_work

LATER = NOW + timedelta(seconds=1)
FIELDS: OrderFields = {"items": [ItemFields("anvil", "Anvil", 2, Money("EUR", Decimal("10.50")))]}


@pytest.fixture
async def user(store: Database) -> User:
    return await add_user(store)


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


async def test_a_user_who_cannot_order_is_told_so(store: Database, user: User) -> None:
    async with unit_of_work(store) as uow:
        await change_user(uow, user.id, "", lambda user: user.deactivate(NOW))
        with pytest.raises(UserNotActive, match="can place orders"):
            await create_order(uow, user.id, FIELDS, NOW)


async def stored(store: Database, order: Order) -> OrderMessage:
    (row,) = await store.order_queries.by_ids([str(order.id)])
    return order_message(row)


CHANGES: dict[str, Callable[[UnitOfWork, UUID, str], Awaitable[OrderHeader]]] = {
    "update": lambda uow, order_id, etag: update_order(uow, order_id, etag, {"external_ref": "r-1"}, LATER),
    "confirm": lambda uow, order_id, etag: confirm_order(uow, order_id, etag, LATER),
    "cancel": lambda uow, order_id, etag: cancel_order(uow, order_id, etag, "no", LATER),
    "tag": lambda uow, order_id, etag: add_order_tags(uow, order_id, etag, ["gift", "vip"], LATER),
    "transition": lambda uow, order_id, etag: transition_order(uow, order_id, etag, lambda order: order.confirm(LATER)),
    "change": lambda uow, order_id, etag: change_order(uow, order_id, etag, lambda order: order.confirm(LATER)),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_checks_the_etag_and_returns_the_order(store: Database, user: User, change: str) -> None:
    order = await placed(store, user)
    async with unit_of_work(store) as uow:
        with pytest.raises(EtagMismatch):
            await CHANGES[change](uow, order.id, "v2")
        with pytest.raises(OrderNotFound):
            await CHANGES[change](uow, uuid4(), "")
        changed = await CHANGES[change](uow, order.id, "v1")
        await uow.commit(b"")
    assert (changed.id, changed.version, changed.update_time) == (order.id, 2, LATER)
    read = await stored(store, order)
    assert (read.etag, read.update_time.ToDatetime(UTC)) == ("v2", LATER)


async def test_changes_do_what_their_names_say(store: Database, user: User) -> None:
    orders = {change: await placed(store, user) for change in CHANGES}
    async with unit_of_work(store) as uow:
        for change, order in orders.items():
            await CHANGES[change](uow, order.id, "")
        await uow.commit(b"")
    read = {change: await stored(store, order) for change, order in orders.items()}
    assert read["update"].external_ref == "r-1"
    assert (read["cancel"].status, read["cancel"].cancel_reason) == (OrderStatus.ORDER_STATUS_CANCELLED, "no")
    assert read["tag"].tags == ["gift", "vip"]
    for change in ("confirm", "transition", "change"):
        assert read[change].status == OrderStatus.ORDER_STATUS_CONFIRMED


async def test_all_orders_of_a_user_go_to_another(store: Database, user: User) -> None:
    taker = await add_user(store)
    one, two = await placed(store, user), await placed(store, user)
    async with unit_of_work(store) as uow:
        await confirm_order(uow, two.id, "", NOW)
        await uow.commit(b"")
    async with unit_of_work(store) as uow:
        assert await transfer_orders(uow, user.id, taker.id, LATER) == 2
        await uow.commit(b"")
    for order, status in ((one, "PENDING"), (two, "CONFIRMED")):
        read = await stored(store, order)
        assert (read.user_id, read.update_time.ToDatetime(UTC)) == (str(taker.id), LATER)
        timeline = await store.order_queries.events(order.id, Page(10, None, include_total_size=False))
        assert timeline is not None
        event = timeline.rows[-1]
        assert (event.type, event.create_time, event.user_id, event.status) == ("TRANSFERRED", LATER, taker.id, status)
        assert event.aggregate_type == "order"
        assert [(change["field"], change["old_value"], change["new_value"]) for change in event.changes] == [
            ("user_id", str(user.id), str(taker.id))
        ]
    async with unit_of_work(store) as uow:
        assert await transfer_orders(uow, user.id, taker.id, LATER) == 0


async def test_orders_cannot_be_transferred_to_their_owner(store: Database, user: User) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(InvalidField, match="must differ from from_user_id") as refused:
            await transfer_orders(uow, user.id, user.id, NOW)
    assert [violation.field for violation in refused.value.violations] == ["to_user_id"]


async def test_orders_are_given_only_to_an_active_user(store: Database, user: User) -> None:
    taker, order = await add_user(store), await placed(store, user)
    async with unit_of_work(store) as uow:
        await change_user(uow, taker.id, "", lambda user: user.deactivate(NOW))
        await uow.commit(b"")
    async with unit_of_work(store) as uow:
        with pytest.raises(UserNotActive, match="can be given orders"):
            await transfer_orders(uow, user.id, taker.id, NOW)
        for pair in ((user.id, uuid4()), (uuid4(), user.id)):
            with pytest.raises(UserNotFound):
                await transfer_orders(uow, *pair, NOW)
        # A user who is not active can give them.
        assert await transfer_orders(uow, taker.id, user.id, NOW) == 0
    assert (await stored(store, order)).user_id == str(user.id)
