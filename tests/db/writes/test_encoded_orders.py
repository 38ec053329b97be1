"""Encoded messages of orders: each equals the order's columns and rows, or is absent."""

import asyncio
import dataclasses
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as pb
import pytest
from commerce.orders.v1.order_pb2 import Order
from hypothesis import given
from hypothesis import strategies as st

from service.application.orders import confirm_order
from service.application.ports.errors import NeedsTransaction
from service.application.ports.unit_of_work import EncodedOrder
from service.config import DatabaseSettings, load
from service.db.database import Database
from service.domain.errors import IllegalTransition
from service.domain.money import Money
from service.domain.orders import ItemFields, OrderFields, OrderHeader
from service.domain.orders import Order as EntityOrder
from service.domain.tags import Tag
from service.rpc.messages.orders import OrderMessageCache, encode_order, order_message
from service.server import MESSAGE_ENCODERS
from tests.support.clients import item, new_order
from tests.support.databases import driver_connection
from tests.support.encoded_orders import encoded_orders, stored_orders
from tests.support.locks import holding
from tests.support.properties import thorough, times
from tests.support.requests import order_in, user_with_credit
from tests.support.servers import OwnServer
from tests.support.waiting import eventually

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def connection(own: OwnServer) -> AsyncIterator[asyncpg.Connection]:
    async with driver_connection(own.database_url) as connection:
        yield connection


async def placed_on_fast_path(own: OwnServer) -> Order:
    return await own.clients.create_order((await own.clients.create_user()).id)


async def placed_under_a_request_id(own: OwnServer) -> Order:
    order = new_order((await own.clients.create_user()).id)
    return (await own.clients.orders.CreateOrder(pb.CreateOrderRequest(order=order, request_id=str(uuid4())))).order


async def placed_step_by_step(own: OwnServer) -> Order:
    order = new_order(await user_with_credit(own.clients), items=[item("bolt", 3, 1), item("lamp", 1, 5)])
    return (await own.clients.orders.CreateOrder(pb.CreateOrderRequest(order=order, pay_with_credit=True))).order


async def placed_with_other_items_now(own: OwnServer) -> Order:
    items = [item("lamp", 7, 10**14, 0, "JPY"), item("b" * 100, 10_000, 0, 0, "JPY")]
    changed = Order(id=(await placed_on_fast_path(own)).id, items=items)
    return (await own.clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=changed))).order


async def brought_to_its_end(own: OwnServer) -> Order:
    return await order_in(own.clients, "DELIVERED")


async def cancelled_with_all_it_can_have(own: OwnServer) -> Order:
    order = new_order((await own.clients.create_user()).id, external_ref="A-2", metadata={"color": "red"})
    order = (await own.clients.orders.CreateOrder(pb.CreateOrderRequest(order=order))).order
    await own.clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=["heavy", "big"]))
    return (await own.clients.orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason="enough"))).order


async def cancelled_with_credit(own: OwnServer) -> Order:
    order = await placed_step_by_step(own)
    return (await own.clients.orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason="enough"))).order


async def with_tags(own: OwnServer) -> Order:
    order = await placed_on_fast_path(own)
    return (await own.clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=["heavy", "big"]))).order


async def with_fewer_tags(own: OwnServer) -> Order:
    order = await with_tags(own)
    return (await own.clients.orders.RemoveOrderTags(pb.RemoveOrderTagsRequest(id=order.id, tags=["big"]))).order


async def with_a_reference_now(own: OwnServer) -> Order:
    changed = Order(id=(await placed_on_fast_path(own)).id, external_ref="A-1")
    return (await own.clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=changed))).order


@pytest.mark.parametrize(
    "make",
    [
        placed_on_fast_path,
        placed_under_a_request_id,
        placed_step_by_step,
        placed_with_other_items_now,
        brought_to_its_end,
        cancelled_with_all_it_can_have,
        cancelled_with_credit,
        with_a_reference_now,
        with_tags,
        with_fewer_tags,
    ],
)
async def test_every_order_is_encoded(
    own: OwnServer, connection: asyncpg.Connection, make: Callable[[OwnServer], Awaitable[Order]]
) -> None:
    order = await make(own)
    assert (await encoded_orders(connection))[order.id] == (await stored_orders(connection))[order.id]


def test_a_message_is_built_again_when_its_order_has_changed() -> None:
    price = Money("EUR", Decimal(5))
    fields: OrderFields = {"items": [ItemFields("anvil", "Anvil", 1, price), ItemFields("lamp", "Lamp", 1, price)]}
    order = EntityOrder.place(uuid4(), "ORD-1", fields, NOW)
    messages = OrderMessageCache()
    encode_order = messages.encode
    assert messages.message(order) == Order.FromString(encode_order(order))
    order.items.pop()
    assert [item.name for item in Order.FromString(encode_order(order)).items] == ["Anvil"]
    order.add_tags([Tag(id=uuid4(), name="heavy")], NOW)
    assert Order.FromString(encode_order(order)).tags == ["heavy"]
    order.cancel("enough", NOW)
    assert Order.FromString(encode_order(order)).cancel_reason == "enough"
    other = EntityOrder.place(order.user_id, "ORD-2", fields, NOW)
    assert Order.FromString(encode_order(other)).order_number == "ORD-2"


def test_a_message_is_built_once_while_its_order_stays_as_it_is() -> None:
    messages = OrderMessageCache()
    fields: OrderFields = {"items": [ItemFields("anvil", "Anvil", 1, Money("EUR", Decimal(5)))]}
    order = EntityOrder.place(uuid4(), "ORD-1", fields, NOW)
    built = messages.message(order)
    messages.encode(order)
    assert messages.message(order) is built
    header = {field.name: getattr(order, field.name) for field in dataclasses.fields(OrderHeader)}
    encoded = EncodedOrder(**header, message=messages.encode(order))
    encoded.confirm(NOW)
    built = messages.message(encoded)
    messages.encode(encoded)
    messages.encode(order)
    assert messages.message(encoded) is built


def test_a_message_is_freed_with_its_order() -> None:
    messages = OrderMessageCache()
    fields: OrderFields = {"items": [ItemFields("anvil", "Anvil", 1, Money("EUR", Decimal(5)))]}
    order = EntityOrder.place(uuid4(), "ORD-1", fields, NOW)
    messages.message(order)
    gone = weakref.ref(order)
    del order
    assert gone() is None


def ship(order: OrderHeader, now: datetime) -> None:
    order.ship("1Z 999", now)


def cancel(order: OrderHeader, now: datetime) -> None:
    order.cancel("enough", now)


TRANSITIONS: list[Callable[[OrderHeader, datetime], None]] = [
    OrderHeader.confirm,
    OrderHeader.process,
    ship,
    OrderHeader.deliver,
    cancel,
]


@thorough
@given(st.lists(st.tuples(st.sampled_from(TRANSITIONS), times), max_size=8))
def test_transitions_change_the_encoded_order_as_they_change_the_order(
    calls: list[tuple[Callable[[OrderHeader, datetime], None], datetime]],
) -> None:
    price = Money("EUR", Decimal("5.5"))
    items = [ItemFields("anvil", "Anvil", 1, price), ItemFields("lamp", "Lamp", 2, price)]
    fields = OrderFields(items=items, external_ref="A-1", metadata={"color": "red"})
    order = EntityOrder.place(uuid4(), "ORD-1", fields, NOW)
    order.add_tags([Tag(id=uuid4(), name="heavy")], NOW)
    for transition, now in calls:
        header = {field.name: getattr(order, field.name) for field in dataclasses.fields(OrderHeader)}
        encoded = EncodedOrder(**header, message=encode_order(order))
        with suppress(IllegalTransition):
            transition(order, now)
            transition(encoded, now)
        assert order_message(encoded) == order_message(order)
        assert Order.FromString(encode_order(encoded)) == order_message(order)


async def test_a_transferred_order_loses_its_encoded_message(own: OwnServer, connection: asyncpg.Connection) -> None:
    order, receiver = await placed_on_fast_path(own), await own.clients.create_user()
    request = pb.TransferOrdersRequest(from_user_id=order.user_id, to_user_id=receiver.id)
    assert (await own.clients.orders.TransferOrders(request)).transferred_count == 1
    assert order.id not in await encoded_orders(connection)
    found = (await own.clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order
    assert found.user_id == receiver.id
    # Its next change encodes it again.
    await own.clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id))
    assert (await encoded_orders(connection))[order.id] == (await stored_orders(connection))[order.id]


async def test_an_order_reads_the_same_without_its_encoded_message(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    order = await placed_step_by_step(own)
    tags = pb.AddOrderTagsRequest(id=order.id, tags=["b", "a"])
    order = (await own.clients.orders.AddOrderTags(tags)).order
    other = await order_in(own.clients, "CANCELLED", metadata={"gift": "yes"}, external_ref="B-1")

    async def everywhere() -> list[list[Order]]:
        orders = own.clients.orders
        ids = [other.id, order.id, other.id]
        exported = [
            found
            async for batch in orders.ExportOrders(pb.ExportOrdersRequest(user_id=order.user_id))
            for found in batch.orders
        ]
        return [
            [(await orders.GetOrder(pb.GetOrderRequest(id=order.id))).order],
            [(await orders.GetOrder(pb.GetOrderRequest(order_number=other.order_number))).order],
            list((await orders.BatchGetOrders(pb.BatchGetOrdersRequest(ids=ids))).orders),
            list((await orders.ListOrders(pb.ListOrdersRequest(user_id=order.user_id))).orders),
            exported,
        ]

    expected = [[order], [other], [other, order, other], [order], [order]]
    # The trigger does not touch this write, because no other column changes.
    keep = "UPDATE orders SET message = $2 WHERE id = ANY($1)"
    ids = [UUID(order.id), UUID(other.id)]
    assert await everywhere() == expected
    await connection.execute(keep, ids[1:], None)
    assert await everywhere() == expected
    await connection.execute(keep, ids, None)
    assert await everywhere() == expected
    # Otherwise the test would prove nothing.
    await connection.execute(keep, ids, Order(id=order.id, order_number="none").SerializeToString())
    assert {found.order_number for answer in await everywhere() for found in answer} == {"none"}
    await connection.execute(keep, ids, None)


RENAME = "UPDATE order_items SET name = 'Feather' WHERE order_id = $1 AND product_id = 'anvil'"
REMOVE = """
WITH removed AS (DELETE FROM order_items WHERE order_id = $1 AND product_id = 'anvil' RETURNING subtotal)
UPDATE orders SET total_amount = total_amount - (SELECT sum(subtotal) FROM removed) WHERE id = $1
"""
ADD = """
WITH added AS (INSERT INTO order_items VALUES ($1, gen_random_uuid(), 'lamp', 'Lamp', 1, 5, 5))
UPDATE orders SET total_amount = total_amount + 5 WHERE id = $1
"""

# The total does not change.
REPLACE = """
WITH removed AS (DELETE FROM order_items WHERE order_id = $1 AND product_id = 'anvil' RETURNING subtotal)
INSERT INTO order_items SELECT $1, gen_random_uuid(), 'lamp', 'Lamp', 1, subtotal, subtotal FROM removed
"""
GIVE_AWAY = "INSERT INTO order_items VALUES ($1, gen_random_uuid(), 'pen', 'Pen', 1, 0, 0)"
EXCHANGE = "UPDATE orders SET currency = 'USD' WHERE id = $1"
TAG = "INSERT INTO order_tags SELECT $1, id FROM tags WHERE name = 'heavy'"
UNTAG = "DELETE FROM order_tags WHERE order_id = $1"
RENAME_TAG = "UPDATE tags SET name = 'light' WHERE id IN (SELECT tag_id FROM order_tags WHERE order_id = $1)"


@pytest.mark.parametrize(
    "change",
    [
        RENAME,
        REMOVE,
        ADD,
        REPLACE,
        GIVE_AWAY,
        EXCHANGE,
        TAG,
        UNTAG,
        RENAME_TAG,
        "UPDATE orders SET order_number = order_number || '-2' WHERE id = $1",
        "UPDATE orders SET user_id = (SELECT id FROM users WHERE id <> user_id LIMIT 1) WHERE id = $1",
        "UPDATE orders SET status = 'CONFIRMED' WHERE id = $1",
        "UPDATE orders SET external_ref = 'mine' WHERE id = $1",
        """UPDATE orders SET metadata = '{"k": "v"}' WHERE id = $1""",
        "UPDATE orders SET status = 'SHIPPED', tracking_number = '1Z' WHERE id = $1",
        "UPDATE orders SET status = 'CANCELLED', cancel_reason = 'enough' WHERE id = $1",
        "UPDATE orders SET credit_state = 'VOIDED', credit_user_id = user_id WHERE id = $1",
        "UPDATE orders SET version = version + 1 WHERE id = $1",
        "UPDATE orders SET create_time = create_time - interval '1 day' WHERE id = $1",
        "UPDATE orders SET update_time = update_time + interval '1 day' WHERE id = $1",
    ],
)
async def test_a_change_by_another_program_invalidates_the_encoded_order(
    own: OwnServer, connection: asyncpg.Connection, change: str
) -> None:
    bystander, order = await with_tags(own), await placed_on_fast_path(own)
    if change in (UNTAG, RENAME_TAG):
        tags = pb.AddOrderTagsRequest(id=order.id, tags=[f"t{order.id}"])
        await own.clients.orders.AddOrderTags(tags)
    assert order.id in await encoded_orders(connection)
    await connection.execute(change, UUID(order.id))
    encoded, stored = await encoded_orders(connection), await stored_orders(connection)
    assert order.id not in encoded
    assert encoded[bystander.id] == stored[bystander.id]
    found = (await own.clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order
    seen = [(item.id, item.name, item.unit_price.currency_code) for item in found.items]
    assert seen == [(item[0], item[2], item[-1]) for item in stored[order.id]["items"]]
    assert (found.user_id, found.etag, found.tags) == tuple(
        stored[order.id][name] for name in ("user_id", "etag", "tags")
    )
    # A change by the service encodes it again.
    await own.clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=["heavy", "round"]))
    assert (await encoded_orders(connection))[order.id] == (await stored_orders(connection))[order.id]


async def test_a_transition_does_not_overwrite_a_concurrent_change(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    order = await placed_on_fast_path(own)
    store = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), MESSAGE_ENCODERS)
    async with store.fast_path(actor="tests", request=None, time_left=lambda: 10) as uow:
        await confirm_order(uow, UUID(order.id), "", datetime.now(UTC))
        # Without a new version.
        await connection.execute("""UPDATE orders SET metadata = '{"k": "v"}' WHERE id = $1""", UUID(order.id))
        with pytest.raises(NeedsTransaction):
            await uow.commit(b"")
    await store.close()
    confirmed = (await own.clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id))).order
    assert dict(confirmed.metadata) == {"k": "v"}
    assert (await encoded_orders(connection))[order.id] == (await stored_orders(connection))[order.id]


async def test_a_transition_notices_credit_that_was_added_since(own: OwnServer, connection: asyncpg.Connection) -> None:
    order = await placed_on_fast_path(own)
    store = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), MESSAGE_ENCODERS)
    async with store.fast_path(actor="tests", request=None, time_left=lambda: 10) as uow:
        await confirm_order(uow, UUID(order.id), "", datetime.now(UTC))
        # Without a new version: the statement itself does not look at credit.
        await connection.execute(
            "UPDATE orders SET credit_state = 'HELD', credit_user_id = user_id, credit_expire_time = now()"
            " WHERE id = $1",
            UUID(order.id),
        )
        with pytest.raises(NeedsTransaction):
            await uow.commit(b"")
    await store.close()


async def test_items_changed_by_hand_wait_for_a_call_that_may_encode_the_old_ones(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    order = await placed_on_fast_path(own)
    await connection.execute("UPDATE orders SET message = NULL WHERE id = $1", UUID(order.id))
    async with driver_connection(own.database_url) as service:
        writing = service.transaction()
        await writing.start()
        # What the service does: lock, read, and write the message made from what it has read.
        await service.execute("SELECT FROM orders WHERE id = $1 FOR NO KEY UPDATE", UUID(order.id))
        change = asyncio.ensure_future(connection.execute(RENAME, UUID(order.id)))
        await eventually(lambda: is_waiting(service))
        await service.execute("UPDATE orders SET message = $2 WHERE id = $1", UUID(order.id), order.SerializeToString())
        await writing.commit()
        await change
    assert order.id not in await encoded_orders(connection)


async def test_a_tag_that_is_being_renamed_is_not_encoded_under_its_old_name(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    order, other = await placed_on_fast_path(own), await placed_on_fast_path(own)
    for tagged in (order, other):
        await own.clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=tagged.id, tags=["frail"]))
    await own.clients.orders.RemoveOrderTags(pb.RemoveOrderTagsRequest(id=order.id, tags=["frail"]))
    async with holding(own.database_url, "UPDATE tags SET name = 'brittle' WHERE name = 'frail'"):
        adding = asyncio.ensure_future(
            own.clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=["frail"]))
        )
        await eventually(lambda: is_waiting(connection))
    assert (await adding).order.tags == ["frail"]
    assert other.id not in await encoded_orders(connection)
    assert (await encoded_orders(connection))[order.id] == (await stored_orders(connection))[order.id]


async def test_items_encoded_by_the_previous_release_are_invalidated(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    order = await placed_on_fast_path(own)
    await connection.execute("UPDATE orders SET items_message = 'x' WHERE id = $1", UUID(order.id))
    # The total does not change.
    changed = Order(id=order.id, items=order.items)
    for renamed in changed.items:
        renamed.name = "Feather"
    await own.clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=changed))
    assert await connection.fetchval("SELECT items_message FROM orders WHERE id = $1", UUID(order.id)) is None
    assert (await encoded_orders(connection))[order.id] == (await stored_orders(connection))[order.id]


async def is_waiting(connection: asyncpg.Connection) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await connection.fetchval(waiting) == 1)
