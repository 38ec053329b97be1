import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import OrderEventType, OrderStatus
from commerce.users.v1.user_pb2 import User, UserEventType
from google.protobuf.empty_pb2 import Empty

from tests.support.clients import Clients, connect
from tests.support.databases import driver_connection, observing
from tests.support.failures import fails
from tests.support.passwords import PASSWORD
from tests.support.sent_statements import sent_statements
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually
from tests.support.watching import Stream, committed_event_ids, ids, insert_events, watch_orders, watch_users

NEVER = 1000.0


def order_types(events: list[Any]) -> list[str]:
    return [OrderEventType.Name(event.type).removeprefix("ORDER_EVENT_TYPE_") for event in events]


def user_types(events: list[Any]) -> list[str]:
    return [UserEventType.Name(event.type).removeprefix("USER_EVENT_TYPE_") for event in events]


async def test_a_watch_from_now_gets_the_events_after_its_first_response(clients: Clients) -> None:
    user = await clients.create_user()
    before = await clients.create_order(user.id)
    async with watch_orders(clients, now=True, user_ids=[user.id]) as stream:
        await stream.checkpoint()
        order = await clients.create_order(user.id)
        await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
        await clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=before.id, reason="late"))
        created, confirmed, cancelled = await stream.events(3)
    assert order_types([created, confirmed, cancelled]) == ["CREATED", "CONFIRMED", "CANCELLED"]
    assert (created.order_id, confirmed.order_id, cancelled.order_id) == (order.id, order.id, before.id)
    assert {created.user_id, confirmed.user_id, cancelled.user_id} == {user.id}
    assert confirmed.status == OrderStatus.ORDER_STATUS_CONFIRMED
    timeline = await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order.id))
    assert list(timeline.events) == [created, confirmed]


async def test_watched_users_show_no_personal_data(clients: Clients) -> None:
    user = await clients.create_user(full_name="Ada Lovelace")
    async with watch_users(clients, now=True, user_ids=[user.id]) as stream:
        await stream.checkpoint()
        await clients.users.UpdateUser(users_pb.UpdateUserRequest(user=User(id=user.id, full_name="Ada King")))
        await clients.users.SetPassword(users_pb.SetPasswordRequest(id=user.id, password=PASSWORD))
        await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user.id))
        await clients.create_order((await clients.create_user()).id)
        await clients.users.DeleteUser(users_pb.DeleteUserRequest(id=user.id))
        events = await stream.events(4)
    assert user_types(events) == ["UPDATED", "PASSWORD_CHANGED", "DEACTIVATED", "DELETED"]
    assert {event.user_id for event in events} == {user.id}
    assert [(change.field, change.new_value) for change in events[0].changes] == [("full_name", "")]
    assert [(change.field, change.new_value) for change in events[2].changes] == [("state", "INACTIVE")]


async def test_users_are_chosen_by_the_types_of_their_events(clients: Clients) -> None:
    deleted = UserEventType.USER_EVENT_TYPE_DELETED
    user = await clients.create_user()
    async with watch_users(clients, now=True, types=[deleted], user_ids=[user.id]) as stream:
        await stream.checkpoint()
        await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user.id))
        await clients.users.DeleteUser(users_pb.DeleteUserRequest(id=user.id))
        (event,) = await stream.events(1)
    assert event.type == deleted


async def test_orders_are_chosen_by_user_and_status_and_a_cursor_serves_other_filters(clients: Clients) -> None:
    user, other = await clients.create_user(), await clients.create_user()
    async with watch_orders(clients, now=True, user_ids=[user.id]) as stream:
        cursor = await stream.checkpoint()
    orders = [await clients.create_order(user_id) for user_id in (other.id, user.id, other.id)]
    for order in orders[1:]:
        await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
    confirmed = OrderStatus.ORDER_STATUS_CONFIRMED
    both = [user.id, other.id]
    async with watch_orders(clients, cursor=cursor, user_ids=both, statuses=[confirmed]) as stream:
        assert [event.order_id for event in await stream.events(2)] == [orders[1].id, orders[2].id]
    async with watch_orders(clients, cursor=cursor, user_ids=[other.id]) as stream:
        assert [event.order_id for event in await stream.events(3)] == [orders[0].id, orders[2].id, orders[2].id]


async def test_a_watch_from_the_earliest_gets_all_stored_events_and_goes_on(
    database_url: str, connection: asyncpg.Connection
) -> None:
    # More than one page, so that it catches up before it joins.
    await insert_events(connection, 1200)
    async with serving_clients(database_url) as clients, watch_orders(clients, earliest=True) as stream:
        seen = await stream.events(1200)
        await clients.create_order((await clients.create_user()).id)
        seen += await stream.events(1)
    assert ids(seen) == await committed_event_ids(connection)


async def test_a_cursor_goes_on_at_another_server(database_url: str, connection: asyncpg.Connection) -> None:
    await insert_events(connection, 5)
    async with serving_clients(database_url) as one, watch_orders(one, earliest=True) as stream:
        seen = await stream.events(3)
        cursor = stream.cursor
    async with serving_clients(database_url) as another, watch_orders(another, cursor=cursor) as stream:
        seen += await stream.events(2)
    assert ids(seen) == await committed_event_ids(connection)


async def test_an_idle_watcher_gets_checkpoints_that_move_past_filtered_events(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with serving_clients(database_url, watch_checkpoint_interval=0.05) as clients:
        async with watch_users(clients, now=True) as stream:
            first = await stream.checkpoint()
            assert await stream.checkpoint() == first
            await insert_events(connection)
            moved = await eventually(lambda: _moved(stream, first))
        await clients.create_user()
        async with watch_users(clients, cursor=moved) as stream:
            assert user_types(await stream.events(1)) == ["CREATED"]


async def _moved(stream: Stream, cursor: str) -> str:
    new = await stream.checkpoint()
    return new if new != cursor else ""


async def test_checkpoints_come_after_many_events_that_are_not_wanted(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await insert_events(connection, 1100)
    nobody = str(uuid4())
    async with (
        serving_clients(database_url, watch_checkpoint_interval=NEVER) as clients,
        watch_orders(clients, earliest=True, user_ids=[nobody]) as stream,
    ):
        caught_up = [await stream.checkpoint() for _ in range(3)]
        await insert_events(connection, 600)
        live = await stream.checkpoint()
        wanted = await insert_events(connection, user_id=nobody)
        assert ids(await stream.events(1)) == wanted
    assert len({*caught_up, live}) == 4


@pytest.mark.parametrize("now", [{}, {"now": False}, {"earliest": False}], ids=["unset", "not now", "not earliest"])
async def test_a_watch_requires_a_start(clients: Clients, now: dict[str, bool]) -> None:
    async with watch_orders(clients, **now) as stream:
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
            await stream.next()


@pytest.mark.parametrize("kind", ["forged", "truncated", "padded", "empty", "noise", "of users"])
async def test_a_foreign_cursor_is_refused(clients: Clients, kind: str) -> None:
    async with watch_orders(clients, now=True) as stream:
        cursor = await stream.checkpoint()
    async with watch_users(clients, now=True) as stream:
        of_users = await stream.checkpoint()
    forged = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    cursors = {
        "forged": forged,
        "truncated": cursor[:-4],
        "padded": cursor + "=",
        "empty": "",
        "noise": "\0 ?",
        "of users": of_users,
    }
    async with watch_orders(clients, cursor=cursors[kind]) as stream:
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CURSOR", field="cursor"):
            await stream.next()


@pytest.mark.parametrize("filters", [{"user_ids": ["ada"]}, {"statuses": [0]}, {"user_ids": [str(uuid4())] * 101}])
async def test_a_wrong_filter_is_refused(clients: Clients, filters: dict[str, Any]) -> None:
    async with watch_orders(clients, now=True, **filters) as stream:
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
            await stream.next()


async def test_bytes_that_are_no_request_are_refused(clients: Clients) -> None:
    call = clients.channel.unary_stream(
        "/commerce.orders.v1.OrderService/WatchOrders",
        request_serializer=lambda data: data,
        response_deserializer=Empty.FromString,
    )(b"\xff")
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"):
        await call.read()


async def test_an_event_that_commits_after_later_ones_is_not_missed(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with (
        driver_connection(database_url) as slow,
        serving_clients(database_url, watch_checkpoint_interval=0.05) as clients,
        watch_orders(clients, earliest=True) as live,
    ):
        await live.checkpoint()
        transaction = slow.transaction()
        await transaction.start()
        first = await insert_events(slow)
        second = await insert_events(connection)
        cursor = await live.checkpoint()
        async with watch_orders(clients, earliest=True) as stream:
            # Neither event is delivered: the cursor of the second would skip the first.
            assert await stream.checkpoint() == cursor
        await transaction.commit()
        assert ids(await live.events(2)) == first + second
        async with watch_orders(clients, cursor=cursor) as stream:
            assert ids(await stream.events(2)) == first + second


async def test_a_rolled_back_event_is_never_seen(database_url: str, connection: asyncpg.Connection) -> None:
    async with serving_clients(database_url) as clients, watch_orders(clients, now=True) as stream:
        await stream.checkpoint()
        transaction = connection.transaction()
        await transaction.start()
        await insert_events(connection)
        await transaction.rollback()
        kept = await insert_events(connection)
        assert ids(await stream.events(1)) == kept


async def test_watchers_that_come_and_go_under_load_see_every_event_once_in_one_order(
    database_url: str, connection: asyncpg.Connection
) -> None:
    # A small queue, so that watchers overflow, catch up and join again.
    async with serving_clients(database_url, watch_queue_size=3, db_pool_size=4) as clients:
        user = await clients.create_user()

        async def write() -> None:
            for _ in range(10):
                order = await clients.create_order(user.id)
                await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))

        async def watch(length: int) -> list[str]:
            seen: list[str] = []
            start: dict[str, Any] = {"earliest": True}
            while len(seen) < 80:
                async with watch_orders(clients, **start) as stream:
                    seen += ids(await stream.events(min(length, 80 - len(seen))))
                    start = {"cursor": stream.cursor}
            return seen

        watchers = [asyncio.create_task(watch(length)) for length in (1, 7, 30, 80)]
        await asyncio.gather(*(write() for _ in range(4)))
        everything = await committed_event_ids(connection)
        assert len(everything) == 80
        for watcher in watchers:
            assert await watcher == everything


async def test_a_watcher_that_does_not_read_is_dropped_and_goes_on_from_its_last_cursor(
    database_url: str, connection: asyncpg.Connection
) -> None:
    large = f'[{{"field": "reason", "old_value": "", "new_value": "{"x" * 10_000}"}}]'
    patience = 2.0
    async with running_server(database_url, watch_queue_size=5, slow_consumer_timeout=patience) as server:
        # Its own connection, which buffers little unread data.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 65_535),
        ]
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel,
            connect(server.port) as clients,
            watch_orders(clients, now=True) as reading,
        ):
            watch = channel.unary_stream(
                "/commerce.orders.v1.OrderService/WatchOrders",
                request_serializer=orders_pb.WatchOrdersRequest.SerializeToString,
                response_deserializer=orders_pb.WatchOrdersResponse.FromString,
            )
            stalled = Stream(watch(orders_pb.WatchOrdersRequest(now=True)))
            await stalled.checkpoint()
            await reading.checkpoint()
            # More than flow control allows unread, then more than the queue holds.
            await insert_events(connection, 300, changes=large)
            assert len(await reading.events(300)) == 300
            await insert_events(connection, 20)
            assert len(await reading.events(20)) == 20
            await asyncio.sleep(patience)
            seen: list[str] = []
            with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER") as failure:
                while True:
                    seen += ids(await stalled.events(1))
            assert failure.metadata == {"cursor": stalled.cursor}
            assert 0 < len(seen) < 320
            async with watch_orders(clients, cursor=stalled.cursor) as stream:
                seen += ids(await stream.events(320 - len(seen)))
    assert seen == await committed_event_ids(connection)


async def test_a_draining_server_ends_its_watches_with_the_cursor_to_go_on_from(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        stream = Stream(clients.orders.WatchOrders(orders_pb.WatchOrdersRequest(now=True)))
        await stream.checkpoint()
        seen = await insert_events(connection)
        assert ids(await stream.events(1)) == seen
        stopping = asyncio.create_task(server.stop(grace=60))
        with fails(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING") as failure:
            await stream.next()
        assert failure.metadata == {"cursor": stream.cursor}
        # Far less than the grace period: the watch ends early.
        async with asyncio.timeout(30):
            await stopping
        missed = await insert_events(connection)
    async with (
        serving_clients(database_url) as clients,
        watch_orders(clients, cursor=failure.metadata["cursor"]) as stream,
    ):
        assert ids(await stream.events(1)) == missed


async def test_watchers_stay_while_the_database_is_away_and_miss_nothing(
    database_url: str, postgres_url: str, connection: asyncpg.Connection
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    async with (
        driver_connection(postgres_url) as admin,
        serving_clients(database_url, watch_checkpoint_interval=0.3) as clients,
        watch_orders(clients, now=True) as stream,
    ):
        await stream.checkpoint()
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2",
            name,
            await connection.fetchval("SELECT pg_backend_pid()"),
        )
        ids_written = await insert_events(connection, 2)
        # Long enough for it to be missed.
        assert (await stream.next()).WhichOneof("content") == "checkpoint"
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert ids(await stream.events(2)) == ids_written


async def test_many_watchers_cost_the_database_no_more_than_one(
    database_url: str, connection: asyncpg.Connection
) -> None:
    interval = 0.1
    clock = asyncio.get_running_loop()
    async with (
        serving_clients(database_url, watch_poll_interval=interval, watch_checkpoint_interval=NEVER) as clients,
        AsyncExitStack() as stack,
    ):
        streams = [await stack.enter_async_context(watch_orders(clients, now=True)) for _ in range(80)]
        for stream in streams:
            await stream.checkpoint()
        started = clock.time()
        with sent_statements() as sent:
            for _ in range(3):
                written = await insert_events(connection)
                for stream in streams:
                    assert ids(await stream.events(1)) == written
            looks = [statement for statement, _ in sent if "swept_events" in statement]
        # At most as many as one reader can send in this time; one reader per watcher would send hundreds.
        assert 3 <= len(looks) <= (clock.time() - started) / interval + 2


async def test_without_watchers_the_feed_does_not_poll(database_url: str) -> None:
    async def looks() -> int:
        with sent_statements() as sent:
            await asyncio.sleep(0.2)
        return len([statement for statement, _ in sent if "swept_events" in statement])

    async def none() -> bool:
        return await looks() == 0

    async with serving_clients(database_url) as clients:
        assert await looks() == 0
        async with watch_orders(clients, now=True) as stream:
            await stream.checkpoint()
            assert await eventually(looks)
        assert await eventually(none)


async def test_an_event_of_a_newer_release_is_delivered_without_a_name(
    database_url: str, connection: asyncpg.Connection
) -> None:
    written = await insert_events(connection, type="PAINTED", status="PURPLE")
    async with serving_clients(database_url) as clients, watch_orders(clients, earliest=True) as stream:
        (event,) = await stream.events(1)
    assert (event.id, event.type, event.status) == (written[0], 0, 0)


async def test_an_event_of_an_older_release_is_chosen_by_its_order(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
        for kind in ("CREATED", "CONFIRMED", "PAINTED"):
            await insert_events(connection, type=kind, status=None, order_id=order.id)
        statuses = [OrderStatus.ORDER_STATUS_PENDING, OrderStatus.ORDER_STATUS_CONFIRMED]
        async with watch_orders(clients, earliest=True, user_ids=[user.id], statuses=statuses) as stream:
            events = await stream.events(5)
        timeline = await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order.id))
    pending, confirmed = statuses
    assert [event.status for event in events] == [pending, confirmed, pending, confirmed, confirmed]
    assert list(timeline.events) == events


@pytest.mark.parametrize("start", ["now", "earliest", "cursor"])
async def test_the_first_watch_after_connections_were_lost_is_retried(database_url: str, start: str) -> None:
    async with (
        serving_clients(database_url) as clients,
        observing(database_url) as observer,
    ):
        async with watch_orders(clients, now=True) as stream:
            await stream.checkpoint()
            cursor = stream.cursor
        starts: dict[str, Any] = {"now": True, "earliest": True, "cursor": cursor}
        # As by a restart of PostgreSQL: the watches' connections are in their pool, and none of them works.
        await observer.terminate(await observer.backends())
        async with watch_orders(clients, **{start: starts[start]}) as stream:
            await stream.checkpoint()
