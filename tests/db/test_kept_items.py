"""Items that are kept with the order as the API sends them: always those of `order_items`, or none."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as pb
import pytest
from commerce.orders.v1.order_pb2 import Order

from tests.kept_items import kept_items, stored_items
from tests.support import driver_connection, item, new_order
from tests.wire import OwnServer, order_in, own_server, user_with_credit


@pytest.fixture(scope="module")
async def own(postgres_url: str, template_url: str) -> AsyncIterator[OwnServer]:
    async with own_server(postgres_url, template_url) as own:
        yield own


@pytest.fixture
async def connection(own: OwnServer) -> AsyncIterator[asyncpg.Connection]:
    async with driver_connection(own.database_url) as connection:
        yield connection


async def placed_at_once(own: OwnServer) -> Order:
    return await own.clients.create_order((await own.clients.create_user()).id)


async def placed_under_a_request_id(own: OwnServer) -> Order:
    order = new_order((await own.clients.create_user()).id)
    return (await own.clients.orders.CreateOrder(pb.CreateOrderRequest(order=order, request_id=str(uuid4())))).order


async def placed_step_by_step(own: OwnServer) -> Order:
    order = new_order(await user_with_credit(own.clients), items=[item("bolt", 3, 1), item("lamp", 1, 5)])
    return (await own.clients.orders.CreateOrder(pb.CreateOrderRequest(order=order, pay_with_credit=True))).order


async def placed_with_other_items_now(own: OwnServer) -> Order:
    items = [item("lamp", 7, 10**14, 0, "JPY"), item("b" * 100, 10_000, 0, 0, "JPY")]
    changed = Order(id=(await placed_at_once(own)).id, items=items)
    return (await own.clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=changed))).order


async def brought_to_its_end(own: OwnServer) -> Order:
    return await order_in(own.clients, "DELIVERED")


async def with_a_reference_now(own: OwnServer) -> Order:
    changed = Order(id=(await placed_at_once(own)).id, external_ref="A-1")
    return (await own.clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=changed))).order


@pytest.mark.parametrize(
    "make",
    [
        placed_at_once,
        placed_under_a_request_id,
        placed_step_by_step,
        placed_with_other_items_now,
        brought_to_its_end,
        with_a_reference_now,
    ],
)
async def test_every_order_keeps_its_items(
    own: OwnServer, connection: asyncpg.Connection, make: Callable[[OwnServer], Awaitable[Order]]
) -> None:
    order = await make(own)
    kept = await kept_items(connection)
    assert len(kept[order.id]) == len(order.items)
    assert kept[order.id] == (await stored_items(connection))[order.id]


async def test_an_order_reads_the_same_where_its_items_are_not_kept(
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
    keep = "UPDATE orders SET items_message = $2 WHERE id = ANY($1)"
    ids = [UUID(order.id), UUID(other.id)]
    assert await everywhere() == expected
    await connection.execute(keep, ids[1:], None)
    assert await everywhere() == expected
    await connection.execute(keep, ids, None)
    assert await everywhere() == expected
    # Otherwise it would be no wonder.
    await connection.execute(keep, ids, b"")
    assert not any(found.items for answer in await everywhere() for found in answer)
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

# The total stays as it is.
REPLACE = """
WITH removed AS (DELETE FROM order_items WHERE order_id = $1 AND product_id = 'anvil' RETURNING subtotal)
INSERT INTO order_items SELECT $1, gen_random_uuid(), 'lamp', 'Lamp', 1, subtotal, subtotal FROM removed
"""
EXCHANGE = "UPDATE orders SET currency = 'USD' WHERE id = $1"


@pytest.mark.parametrize("change", [RENAME, REMOVE, ADD, REPLACE, EXCHANGE])
async def test_items_that_somebody_else_changes_are_kept_no_longer(
    own: OwnServer, connection: asyncpg.Connection, change: str
) -> None:
    order, bystander = await placed_at_once(own), await placed_at_once(own)
    await connection.execute(change, UUID(order.id))
    kept, stored = await kept_items(connection), await stored_items(connection)
    assert order.id not in kept
    assert kept[bystander.id] == stored[bystander.id]
    found = (await own.clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order
    seen = [(item.id, item.name, item.unit_price.currency_code) for item in found.items]
    assert sorted(seen) == [(row[0], row[2], row[-1]) for row in stored[order.id]]
    # A change of the items by the service keeps them again.
    changed = pb.UpdateOrderRequest(order=Order(id=order.id, items=[item("lamp", 1, 5)]))
    await own.clients.orders.UpdateOrder(changed)
    assert (await kept_items(connection))[order.id] == (await stored_items(connection))[order.id]


async def test_items_stay_kept_when_something_else_changes(own: OwnServer, connection: asyncpg.Connection) -> None:
    order = await placed_at_once(own)
    await connection.execute(
        "UPDATE orders SET total_amount = total_amount, version = version + 1 WHERE id = $1", UUID(order.id)
    )
    assert order.id in await kept_items(connection)
