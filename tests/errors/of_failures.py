"""Servers with too much to do, and without what they need: the examples of docs/errors/failures.md."""

from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
from commerce.orders.v1.order_pb2 import Order

from tests.errors.world import World, example
from tests.support.clients import item
from tests.support.locks import holding
from tests.support.proxies import COMMIT, proxy_to
from tests.support.requests import order_in, user_with_credit
from tests.support.servers import serving_clients
from tests.support.watching import watch_orders

# Every order conflicts with another transaction, as far as PostgreSQL says.
CONFLICTS = """
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another transaction has changed it' USING ERRCODE = 'serialization_failure';
END
$$;
CREATE TRIGGER conflict BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION conflict()
"""


@example("OVERLOADED")
async def one_watch_more_than_the_server_has_room_for(world: World) -> None:
    async with (
        serving_clients(world.own.database_url, max_watches=1) as clients,
        watch_orders(clients, now=True) as first,
        watch_orders(clients, now=True) as second,
    ):
        await first.checkpoint()
        await second.next()


@example("RESPONSE_TOO_LARGE")
async def a_large_order_a_thousand_times(world: World) -> None:
    order = await order_in(world.own.clients, "PENDING", items=[item("anvil", 1, 10)] * 100)
    await world.own.clients.orders.BatchGetOrders(orders_pb.BatchGetOrdersRequest(ids=[order.id] * 1000))


@example("CONTENTION")
async def conflicts_without_end(world: World) -> None:
    user = await world.own.clients.create_user()
    await world.own.connection.execute(CONFLICTS)
    try:
        await world.own.clients.create_order(user.id)
    finally:
        await world.own.connection.execute("DROP FUNCTION conflict CASCADE")


@example("DATABASE_UNAVAILABLE")
async def a_database_out_of_reach(world: World) -> None:
    async with proxy_to(world.own.database_url) as proxy, serving_clients(proxy.url) as clients:
        await proxy.refuse()
        await clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))


@example("DEADLINE_EXCEEDED")
async def a_lock_that_is_held_for_longer_than_a_call_may_take(world: World) -> None:
    async with (
        serving_clients(world.own.database_url, default_deadline=0.3) as clients,
        holding(world.own.database_url, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"),
    ):
        await clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))


@example("OUTCOME_UNKNOWN")
async def a_commit_whose_answer_is_lost(world: World) -> None:
    async with proxy_to(world.own.database_url) as proxy, serving_clients(proxy.url) as clients:
        user_id = await user_with_credit(clients)
        proxy.lose_answer_to = COMMIT
        order = Order(user_id=user_id, items=[item("anvil", 1, 10)])
        await clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=order, pay_with_credit=True))


@example("INTERNAL")
async def a_table_that_was_renamed_by_hand(world: World) -> None:
    order = await order_in(world.own.clients, "PENDING")
    await world.own.connection.execute("ALTER TABLE order_notes RENAME TO notes_about_orders")
    try:
        await world.own.clients.orders.ListOrderNotes(orders_pb.ListOrderNotesRequest(order_id=order.id))
    finally:
        await world.own.connection.execute("ALTER TABLE notes_about_orders RENAME TO order_notes")
