import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderStatus
from commerce.users.v1.user_pb2 import User, UserProfile, UserState
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from structlog.testing import capture_logs

from service.application.ports.queries import OrderFilter, OrderOrder, Page, UserFilter, UserOrder
from service.config import ServerSettings, load
from service.db.reads.snapshots import Snapshots
from service.rpc.messages.orders import order_message
from service.rpc.messages.users import user_message
from service.rpc.signing.page_tokens import position
from service.rpc.streams import exports
from tests.support.clients import Clients, connect, item
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.memory import resident_megabytes
from tests.support.sent_statements import sent_statements
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually

EVERYBODY = UserFilter(states=None, created_from=None, created_before=None, superuser=None)
ALL_ORDERS = OrderFilter(user_id=None, statuses=None, created_from=None, created_before=None, tags_any=(), tags_all=())
# More data than connections buffer.
MANY = """
    SET session_replication_role = replica;
    WITH made AS (
        INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time)
        SELECT gen_random_uuid(), n || '@example.com', 'user.' || n, 'Ada', false, 'ACTIVE', 1, now(), now()
        FROM generate_series(1, 20000) n RETURNING id
    )
    INSERT INTO user_profiles (user_id, bio, avatar_url) SELECT id, repeat('x', 1000), '' FROM made
"""


async def exported_users(clients: Clients, **fields: Any) -> list[User]:
    return [user async for batch in clients.users.ExportUsers(pb.ExportUsersRequest(**fields)) for user in batch.users]


async def exported_orders(clients: Clients, **fields: Any) -> list[Order]:
    call = clients.orders.ExportOrders(orders_pb.ExportOrdersRequest(**fields))
    return [order async for batch in call for order in batch.orders]


async def just_before() -> Interval:
    start = Timestamp()
    start.FromDatetime(datetime.now(UTC))
    return Interval(start_time=start)


@asynccontextmanager
async def many_users(database_url: str, **settings: object) -> AsyncIterator[Clients]:
    async with driver_connection(database_url) as connection:
        await connection.execute(MANY)
    async with serving_clients(database_url, **settings) as clients:
        yield clients


async def test_users_are_exported_as_get_returns_them_first_created_first(clients: Clients) -> None:
    since = await just_before()
    users = [await clients.create_user(profile=UserProfile(bio="x")) for _ in range(3)]
    await clients.users.DeleteUser(pb.DeleteUserRequest(id=users[1].id))
    await clients.users.DeactivateUser(pb.DeactivateUserRequest(id=users[2].id))
    users = [(await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user for user in users]
    assert await exported_users(clients, create_time=since) == [users[0], users[2]]
    assert await exported_users(clients, create_time=since, show_deleted=True) == users
    assert await exported_users(clients, create_time=since, states=[UserState.USER_STATE_DELETED]) == [users[1]]
    assert await exported_users(clients, create_time=since, superuser=True) == []


async def test_orders_are_exported_with_their_items(clients: Clients) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id) for _ in range(3)]
    confirmed = (await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=orders[1].id))).order
    assert await exported_orders(clients, user_id=user.id) == [orders[0], confirmed, orders[2]]
    pending = [OrderStatus.ORDER_STATUS_PENDING]
    assert await exported_orders(clients, user_id=user.id, statuses=pending) == [orders[0], orders[2]]
    assert await exported_orders(clients, user_id=user.id, create_time=await just_before()) == []


async def test_a_message_stays_far_below_the_maximum_size(clients: Clients) -> None:
    user = await clients.create_user()
    items = [item("p" * 100, 1, 1) for _ in range(500)]
    for order in range(10):
        await clients.create_order(user.id, items=items, metadata={"n": str(order)})
    sizes, seen = [], []
    async for batch in clients.orders.ExportOrders(orders_pb.ExportOrdersRequest(user_id=user.id)):
        sizes.append(batch.ByteSize())
        seen += [order.metadata["n"] for order in batch.orders]
    assert seen == [str(order) for order in range(10)]
    assert len(sizes) > 1
    assert max(sizes) < 2**20 + 1000


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"states": [9]}, "states[0]"),
        ({"create_time": Interval(start_time=Timestamp(seconds=2), end_time=Timestamp(seconds=1))}, "create_time"),
    ],
)
async def test_a_wrong_filter_is_refused(clients: Clients, fields: dict[str, Any], field: str) -> None:
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=field):
        await exported_users(clients, **fields)


async def test_an_export_sees_one_moment_however_long_it_takes(database_url: str) -> None:
    snapshots = Snapshots(load(ServerSettings, DATABASE_URL=database_url))
    async with serving_clients(database_url) as clients:
        users = [await clients.create_user() for _ in range(3)]
        order = await clients.create_order(users[0].id)
        async with snapshots() as snapshot:
            first = await snapshot.users.page(EVERYBODY, UserOrder.OLDEST, Page(2, None, include_total_size=False))
            await clients.create_user()
            await clients.users.DeleteUser(pb.DeleteUserRequest(id=users[2].id))
            await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
            after = position(first.rows[-1], ("create_time", "id"))
            rest = await snapshot.users.page(EVERYBODY, UserOrder.OLDEST, Page(2, after, include_total_size=False))
            orders = await snapshot.orders.page(ALL_ORDERS, OrderOrder.OLDEST, Page(2, None, include_total_size=False))
        assert [str(row.id) for row in (*first.rows, *rest.rows)] == [user.id for user in users]
        assert user_message(rest.rows[0]).state == UserState.USER_STATE_ACTIVE
        assert order_message(orders.rows[0]).status == OrderStatus.ORDER_STATUS_PENDING
    await snapshots.close()


async def test_an_export_is_one_statement_for_each_page(database_url: str) -> None:
    async with many_users(database_url) as clients:
        with sent_statements() as sent:
            assert len(await exported_users(clients)) == 20_000
        assert len(sent) == 40


async def test_an_export_takes_the_same_memory_however_much_it_exports(database_url: str) -> None:
    async with serving_clients(database_url) as clients:
        await exported_users(clients)
        async with driver_connection(database_url) as connection:
            await connection.execute(MANY)
        before = resident_megabytes()
        measured = [resident_megabytes() async for _ in clients.users.ExportUsers(pb.ExportUsersRequest())]
    # Three for each page of 500.
    assert len(measured) == 120
    # The users alone would be 20 MB as text, and more than twice that as rows and messages.
    assert max(measured) - before < 20


async def test_concurrent_exports_are_limited_and_a_cancelled_one_frees_its_slot(database_url: str) -> None:
    async with many_users(database_url, max_exports=1) as clients:
        unread = clients.users.ExportUsers(pb.ExportUsersRequest())
        assert (await anext(aiter(unread))).users
        with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
            await exported_orders(clients)
        assert failure.details
        await clients.create_user()
        unread.cancel()
        async with asyncio.timeout(20):
            while True:
                try:
                    await exported_orders(clients)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
                else:
                    break


async def test_an_export_waits_for_another_one_that_ends_soon(database_url: str) -> None:
    async with many_users(database_url, max_exports=1) as clients:
        unread = clients.users.ExportUsers(pb.ExportUsersRequest())
        assert (await anext(aiter(unread))).users
        waiting = asyncio.ensure_future(exported_orders(clients))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        unread.cancel()
        await waiting


async def test_a_caller_that_leaves_ends_the_statement_of_its_export(database_url: str) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with (
        serving_clients(database_url) as clients,
        driver_connection(database_url) as observer,
        holding(database_url, "LOCK TABLE users"),
    ):

        async def until_waiting(count: int) -> None:
            async def reached() -> bool:
                return bool(await observer.fetchval(waiting) == count)

            await eventually(reached)

        with capture_logs() as logs:
            export = asyncio.ensure_future(exported_users(clients))
            await until_waiting(1)
            export.cancel()
            await until_waiting(0)
    assert not [line for line in logs if line["log_level"] == "error"]


async def test_a_caller_that_stops_reading_is_cut_off_and_its_snapshot_closed(database_url: str) -> None:
    open_exports = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now()"
    async with many_users(database_url, export_stall_timeout=0.5) as clients:
        unread = clients.users.ExportUsers(pb.ExportUsersRequest())
        assert (await anext(aiter(unread))).users
        async with driver_connection(database_url) as connection, asyncio.timeout(20):
            while True:
                if not await connection.fetchval(f"{open_exports} AND application_name = 'commerce export'"):
                    break
                await asyncio.sleep(0.05)
        users = 0
        with fails(grpc.StatusCode.ABORTED, "EXPORT_STALLED"):
            async for batch in unread:
                users += len(batch.users)
        assert 0 < users < 20_000


async def test_a_reader_that_is_only_slow_gets_all(database_url: str) -> None:
    async with many_users(database_url, export_stall_timeout=2) as clients:
        users = 0
        async for batch in clients.users.ExportUsers(pb.ExportUsersRequest()):
            users += len(batch.users)
            await asyncio.sleep(0.05)
        assert users == 20_000


async def test_a_reader_that_is_too_slow_makes_room_for_others_and_can_go_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A message has about half a megabyte, so it may take a quarter of a second.
    monkeypatch.setattr(exports, "MIN_BYTES_PER_SECOND", 2 * 1024 * 1024)
    settings = {"max_exports": 1, "export_stall_timeout": 1}
    async with running_server(database_url, **settings) as server, connect(server.port) as clients:
        async with driver_connection(database_url) as connection:
            await connection.execute(MANY.replace("now(), now()", "now() - n * interval '1 s', now()"))
        # Its own connection, which buffers little unread data.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            slow = channel.unary_stream(
                "/commerce.users.v1.UserService/ExportUsers",
                request_serializer=pb.ExportUsersRequest.SerializeToString,
                response_deserializer=pb.ExportUsersResponse.FromString,
            )(pb.ExportUsersRequest())
            seen: list[User] = []
            with fails(grpc.StatusCode.ABORTED, "EXPORT_STALLED") as failure:
                async for batch in slow:
                    seen += batch.users
                    # Longer than a message may take, and far shorter than a stall.
                    await asyncio.sleep(0.5)
        assert "create_time" in failure.message
        # In spite of the slow reader's snapshot, which would have been the only one.
        rest = await exported_users(clients, create_time=Interval(start_time=seen[-1].create_time))
    assert 0 < len(seen) < 20_000
    assert [user.id for user in rest][:1] == [seen[-1].id]
    assert len({user.id for user in (*seen, *rest)}) == 20_000


async def test_an_export_without_a_database_says_so(database_url: str) -> None:
    async with many_users(database_url) as clients:
        unread = clients.users.ExportUsers(pb.ExportUsersRequest())
        assert (await anext(aiter(unread))).users
        async with driver_connection(database_url) as connection:
            await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'commerce export'"
                " AND datname = current_database()"
            )
        with fails(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
            async for _ in unread:
                pass
