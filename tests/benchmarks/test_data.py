from itertools import islice
from random import Random
from typing import Any

import asyncpg
import grpc
import pytest

from benchmarks.data import ORDERS_OF_A_REGULAR, Data, fill, reset
from benchmarks.workloads import WORKLOADS
from tests.support.databases import driver_connection
from tests.support.encoded_orders import encoded_orders, stored_orders
from tests.support.encoded_users import encoded_users, stored_users
from tests.support.servers import running_server

DATA = Data(users=200, orders=400)
WRITING = ("CreateOrder", "CreateOrderWithRequestId", "ConfirmOrder")
# Sequences are not compared: a rollback does not reset them.
STATES = {
    "users": "SELECT * FROM users ORDER BY id",
    "user_profiles": "SELECT * FROM user_profiles ORDER BY user_id",
    "orders": "SELECT * FROM orders ORDER BY id",
    "order_items": "SELECT * FROM order_items ORDER BY order_id, id",
    "events": "SELECT * FROM events ORDER BY position",
    "request_ids": "SELECT * FROM request_ids",
}


async def state(connection: asyncpg.Connection) -> dict[str, list[asyncpg.Record]]:
    return {table: await connection.fetch(query) for table, query in STATES.items()}


async def test_computed_ids_statuses_and_owners_match_the_stored_rows(database_url: str) -> None:
    await fill(database_url, DATA.users, DATA.orders)
    async with driver_connection(database_url) as connection:
        orders = await connection.fetch("SELECT id::text, order_number, user_id::text, status FROM orders ORDER BY id")
        known = [
            (DATA.order_id(order), DATA.order_number(order), DATA.user_id(DATA.user_of(order)), DATA.status_of(order))
            for order in range(1, DATA.orders + 1)
        ]
        assert [tuple(order) for order in orders] == known
        users = await connection.fetch("SELECT id::text FROM users ORDER BY create_time")
        assert [user["id"] for user in users] == [DATA.user_id(user) for user in range(1, DATA.users + 1)]
        for user in range(1, DATA.regulars + 1):
            newest_first = "SELECT id::text FROM orders WHERE user_id = $1 ORDER BY create_time DESC"
            ids = [order["id"] for order in await connection.fetch(newest_first, DATA.user_id(user))]
            expected = [DATA.order_of_regular(user, newest) for newest in range(1, ORDERS_OF_A_REGULAR + 1)]
            assert ids == [DATA.order_id(order) for order in expected]


@pytest.mark.parametrize(("users", "orders"), [(49, 400), (200, 199)])
def test_too_little_data_is_refused(users: int, orders: int) -> None:
    with pytest.raises(ValueError, match="too little"):
        Data(users, orders)


async def test_the_data_satisfies_the_constraints_that_were_off_while_it_was_stored(database_url: str) -> None:
    await fill(database_url, DATA.users, DATA.orders)
    async with driver_connection(database_url) as connection, connection.transaction():
        assert await encoded_orders(connection) == await stored_orders(connection)
        assert await encoded_users(connection) == await stored_users(connection)
        # The update makes the deferred trigger check the totals.
        await connection.execute("UPDATE orders SET total_amount = total_amount")
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        orphans = "SELECT count(*) FROM {} WHERE NOT EXISTS (SELECT FROM {} WHERE id = {})"
        for child, parent, key in (
            ("orders", "users", "user_id"),
            ("order_items", "orders", "order_id"),
            ("user_profiles", "users", "user_id"),
            ("events", "orders", "aggregate_id"),
        ):
            assert await connection.fetchval(orphans.format(child, parent, f"{child}.{key}")) == 0
        stale_search = (
            "SELECT count(*) FROM users JOIN user_profiles ON user_id = id"
            " WHERE search IS DISTINCT FROM user_search(username, full_name, bio)"
        )
        assert await connection.fetchval(stale_search) == 0
        items = "SELECT min(items), max(items) FROM (SELECT count(*) items FROM order_items GROUP BY order_id) _"
        assert tuple(await connection.fetchrow(items)) == (3, 3)
        assert await connection.fetchval("SELECT nextval('order_number_seq')") > DATA.orders


@pytest.mark.parametrize("name", WORKLOADS)
async def test_the_service_answers_the_calls_of_a_workload_as_they_expect(database_url: str, name: str) -> None:
    await fill(database_url, DATA.users, DATA.orders)
    async with running_server(database_url) as server, driver_connection(database_url) as connection:
        before = await state(connection)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for call in islice(WORKLOADS[name].grpc(DATA, Random(1)), 20):
                method: Any = channel.unary_unary(call.path)
                assert call.expect in await method(call.body)
        assert (await state(connection) != before) == (name in (*WRITING, "Mixed"))
        await reset(database_url, DATA)
        assert await state(connection) == before


def test_each_pending_order_is_confirmed_once() -> None:
    calls = list(WORKLOADS["ConfirmOrder"].grpc(DATA, Random(1)))
    pending = [order for order in range(1, DATA.orders + 1) if DATA.status_of(order) == "PENDING"]
    assert len(set(calls)) == len(calls) == len(pending)


@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.http])
def test_calls_over_http_ask_for_the_same_as_those_over_grpc(name: str) -> None:
    workload = WORKLOADS[name]
    assert workload.http
    pairs = zip(workload.grpc(DATA, Random(1)), workload.http(DATA, Random(1)), strict=True)
    for over_grpc, over_http in islice(pairs, 100):
        assert over_http.expect in over_grpc.expect
