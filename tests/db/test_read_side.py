"""Reads where there are many rows: each goes by an index, however often its statement runs."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from argon2 import PasswordHasher
from commerce.orders.v1.order_pb2 import (
    ORDER_STATUS_CANCELLED,
    ORDER_STATUS_CONFIRMED,
    ORDER_STATUS_DELIVERED,
    ORDER_STATUS_PENDING,
    ORDER_STATUS_PROCESSING,
)
from commerce.users.v1.user_pb2 import USER_STATE_ACTIVE, USER_STATE_DELETED, USER_STATE_INACTIVE
from google.protobuf.message import Message
from google.type.interval_pb2 import Interval

from service.db.engine import async_url
from tests.conftest import running_server
from tests.sent import sent_statements
from tests.support import PASSWORD, Clients, connect, driver_connection

USERS, ORDERS = 20_000, 100_000
PASSWORD_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
# One user of a hundred is deleted, one of a hundred a superuser; one order of twenty is open.
ROWS = f"""
SET session_replication_role = replica;
INSERT INTO users (id, email, username, full_name, superuser, state, undelete_state, version, create_time, update_time,
    delete_time, purge_time)
SELECT gen_random_uuid(), 'user' || n || '@example.com', 'user' || n, '', n % 100 = 1,
    CASE WHEN n % 100 = 0 THEN 'DELETED' WHEN n % 10 = 0 THEN 'INACTIVE' ELSE 'ACTIVE' END,
    CASE WHEN n % 100 = 0 THEN 'ACTIVE' END, 1, t, t,
    CASE WHEN n % 100 = 0 THEN t END, CASE WHEN n % 100 = 0 THEN t END
FROM (SELECT n, timestamptz '2026-01-01Z' + n * interval '1 minute' AS t FROM generate_series(1, {USERS}) AS n);
INSERT INTO user_passwords SELECT id, '{PASSWORD_HASH}', create_time FROM users;
INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, metadata, tracking_number, cancel_reason,
    version, create_time, update_time)
SELECT gen_random_uuid(), 'ORD-' || n, user_id, status, 'EUR', 2, '{{}}',
    CASE WHEN status = 'DELIVERED' THEN 'T' END, CASE WHEN status = 'CANCELLED' THEN 'no' END, 1, t, t
FROM (
    SELECT n, timestamptz '2026-02-01Z' + n * interval '10 seconds' AS t,
        CASE WHEN n % 60 = 0 THEN 'PENDING' WHEN n % 60 = 20 THEN 'CONFIRMED' WHEN n % 60 = 40 THEN 'PROCESSING'
            WHEN n % 7 = 0 THEN 'CANCELLED' ELSE 'DELIVERED' END AS status
    FROM generate_series(1, {ORDERS}) AS n
) AS numbered
JOIN (SELECT id AS user_id, row_number() OVER () AS place FROM users) AS placed ON place = n % {USERS} + 1;
INSERT INTO order_items SELECT id, gen_random_uuid(), 'anvil', 'Anvil', 1, 1, 1 FROM orders, generate_series(1, 2);
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes)
SELECT gen_random_uuid(), 'order', id, 'CREATED', 'anonymous', create_time, '[]' FROM orders;
"""
TABLES = {"users", "user_passwords", "orders", "order_items", "events"}
# PostgreSQL chooses anew after a statement's fifth run whether to plan it for its values or for all.
RUNS = 8


class Volume(NamedTuple):
    clients: Clients
    # On which statements are explained as they run.
    connection: asyncpg.Connection
    user_ids: list[str]
    order_ids: list[str]


@pytest.fixture(scope="module")
async def volume(postgres_url: str, template_url: str) -> AsyncIterator[Volume]:
    name = f"volume_{uuid4().hex[:12]}"
    url = async_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    async with driver_connection(postgres_url) as admin:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{async_url(template_url).database}"')
        async with driver_connection(url) as connection:
            await connection.execute(ROWS)
            await connection.execute("VACUUM ANALYZE")
        async with running_server(url) as server, connect(server.port) as clients, driver_connection(url) as connection:
            await connection.execute(
                "LOAD 'auto_explain';"
                "SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice;"
                "SET auto_explain.log_format = json; SET jit = off"
            )
            users = await connection.fetch("SELECT id::text FROM users WHERE state = 'ACTIVE' LIMIT 1000")
            orders = await connection.fetch("SELECT id::text FROM orders LIMIT 1000")
            yield Volume(clients, connection, [row["id"] for row in users], [row["id"] for row in orders])
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def plans(connection: asyncpg.Connection, statement: str, values: tuple[Any, ...]) -> list[Mapping[str, Any]]:
    """Run a statement often enough, and return the plan of each run."""
    explained: list[Mapping[str, Any]] = []

    def listen(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
        explained.append(json.loads(message.message.partition("plan:\n")[2])["Plan"])

    prepared = await connection.prepare(statement)
    connection.add_log_listener(listen)
    for _ in range(RUNS):
        await prepared.fetch(*values)
    # A notice is given to its listener a little later.
    await connection.fetchval("SELECT 1")
    connection.remove_log_listener(listen)
    return explained


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def indexes_of(volume: Volume, service: str, method: str, request: Message) -> set[str]:
    """Call a method; require that no statement of it scans a table of ours, and return the indexes that it uses."""
    stub: Any = getattr(volume.clients, service)
    with sent_statements() as sent:
        await getattr(stub, method)(request)
    assert sent
    indexes = set()
    for statement, values in sent:
        explained = await plans(volume.connection, statement, values)
        assert len(explained) >= RUNS
        for node in (node for plan in explained for node in nodes(plan)):
            assert not (node["Node Type"] == "Seq Scan" and node["Relation Name"] in TABLES), (statement, explained)
            indexes |= {node["Index Name"]} if "Index Name" in node else set()
    return indexes


def interval(*, days: int, start: bool = True, end: bool = True) -> Interval:
    first = datetime(2026, 2, 5, tzinfo=UTC)
    found = Interval()
    if start:
        found.start_time.FromDatetime(first)
    if end:
        found.end_time.FromDatetime(first + timedelta(days=days))
    return found


USER_FILTERS: dict[str, dict[str, Any]] = {
    "any": {},
    "with deleted ones": {"show_deleted": True},
    "active": {"states": [USER_STATE_ACTIVE]},
    "inactive": {"states": [USER_STATE_INACTIVE]},
    "deleted": {"states": [USER_STATE_DELETED]},
    "inactive or deleted": {"states": [USER_STATE_INACTIVE, USER_STATE_DELETED]},
    "superusers": {"superuser": True},
    "no superusers": {"superuser": False},
    "of one day": {"create_time": interval(days=1)},
    "since": {"create_time": interval(days=1, end=False)},
    "until": {"create_time": interval(days=1, start=False)},
    "inactive of one day": {"states": [USER_STATE_INACTIVE], "create_time": interval(days=1)},
    "active superusers": {"states": [USER_STATE_ACTIVE], "superuser": True},
}


@pytest.mark.parametrize("filtered", USER_FILTERS.values(), ids=USER_FILTERS.keys())
async def test_users_are_listed_by_an_index(volume: Volume, filtered: dict[str, Any]) -> None:
    for order_by in users_pb.ListUsersOrderBy.values()[1:]:
        request = users_pb.ListUsersRequest(**filtered, order_by=order_by)
        assert await indexes_of(volume, "users", "ListUsers", request)
        request.page_token = (await volume.clients.users.ListUsers(request)).next_page_token
        assert await indexes_of(volume, "users", "ListUsers", request)


ORDER_FILTERS: dict[str, dict[str, Any]] = {
    "any": {},
    "pending": {"statuses": [ORDER_STATUS_PENDING]},
    "delivered": {"statuses": [ORDER_STATUS_DELIVERED]},
    "open": {"statuses": [ORDER_STATUS_PENDING, ORDER_STATUS_CONFIRMED, ORDER_STATUS_PROCESSING]},
    "ended": {"statuses": [ORDER_STATUS_DELIVERED, ORDER_STATUS_CANCELLED]},
    "of one day": {"create_time": interval(days=1)},
    "since": {"create_time": interval(days=1, end=False)},
    "until": {"create_time": interval(days=1, start=False)},
    "pending of one day": {"statuses": [ORDER_STATUS_PENDING], "create_time": interval(days=1)},
}


@pytest.mark.parametrize("of_user", [False, True], ids=["of all", "of one user"])
@pytest.mark.parametrize("filtered", ORDER_FILTERS.values(), ids=ORDER_FILTERS.keys())
async def test_orders_are_listed_by_an_index(volume: Volume, filtered: dict[str, Any], *, of_user: bool) -> None:
    user_id = volume.user_ids[0] if of_user else ""
    for order_by in orders_pb.ListOrdersOrderBy.values()[1:]:
        request = orders_pb.ListOrdersRequest(**filtered, user_id=user_id, order_by=order_by, page_size=1)
        # Each order's items too.
        assert "pk_order_items" in await indexes_of(volume, "orders", "ListOrders", request)
        request.page_token = (await volume.clients.orders.ListOrders(request)).next_page_token
        assert "pk_order_items" in await indexes_of(volume, "orders", "ListOrders", request)


@pytest.mark.parametrize("order_by", orders_pb.ListOrdersOrderBy.values()[1:], ids=["newest", "oldest"])
async def test_open_orders_of_a_user_have_an_index_of_their_own(volume: Volume, order_by: Any) -> None:
    request = orders_pb.ListOrdersRequest(**ORDER_FILTERS["open"], user_id=volume.user_ids[0], order_by=order_by)
    assert await indexes_of(volume, "orders", "ListOrders", request) == {"ix_orders_open", "pk_order_items"}


ASKED: dict[str, tuple[str, Callable[[Volume], Message]]] = {
    "user by id": ("pk_users", lambda volume: users_pb.GetUserRequest(id=volume.user_ids[0])),
    "user by e-mail": ("uq_users_email", lambda _: users_pb.GetUserRequest(email="USER9@example.com")),
    "user by username": ("uq_users_username", lambda _: users_pb.GetUserRequest(username="user9")),
    "users by ids": ("pk_users", lambda volume: users_pb.BatchGetUsersRequest(ids=volume.user_ids)),
    "password by e-mail": (
        "uq_users_email",
        lambda _: users_pb.VerifyPasswordRequest(email="USER9@example.com", password=PASSWORD),
    ),
    "password by username": (
        "uq_users_username",
        lambda _: users_pb.VerifyPasswordRequest(username="user9", password=PASSWORD),
    ),
    "order by id": ("pk_orders", lambda volume: orders_pb.GetOrderRequest(id=volume.order_ids[0])),
    "order by number": ("uq_orders_order_number", lambda _: orders_pb.GetOrderRequest(order_number="ORD-9")),
    "orders by ids": ("pk_orders", lambda volume: orders_pb.BatchGetOrdersRequest(ids=volume.order_ids)),
    "events of an order": (
        "ix_events_aggregate_id_position",
        lambda volume: orders_pb.ListOrderEventsRequest(order_id=volume.order_ids[0]),
    ),
}


@pytest.mark.parametrize(("index", "ask"), ASKED.values(), ids=ASKED.keys())
async def test_what_is_asked_for_by_name_is_found_by_an_index(
    volume: Volume, index: str, ask: Callable[[Volume], Message]
) -> None:
    request = ask(volume)
    service = "users" if type(request).DESCRIPTOR.file.package == "commerce.users.v1" else "orders"
    method = type(request).DESCRIPTOR.name.removesuffix("Request")
    assert index in await indexes_of(volume, service, method, request)
