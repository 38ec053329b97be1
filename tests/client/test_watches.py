import asyncio
import gc
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from commerce.client import (
    AsyncCallableCursorStore,
    AsyncClient,
    CallableCursorStore,
    Client,
    FileCursorStore,
    MemoryCursorStore,
)
from commerce.client.errors import CursorExpired, InvalidCursor, Unavailable
from commerce.client.testing import Service, Services
from commerce.orders.v1.order_pb2 import OrderEvent

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.retention import delete_expired_events
from tests.support.both_clients import ITEM
from tests.support.databases import driver_connection
from tests.support.passwords import PASSWORD
from tests.support.processes import free_port, serving
from tests.support.servers import running_server
from tests.support.waiting import eventually
from tests.support.watching import insert_events


async def create_user(client: AsyncClient, name: str = "ada") -> str:
    user = await client.users.create(email=f"{name}@example.com", username=name, password=PASSWORD)
    return user.id


async def create_orders(client: AsyncClient, user_id: str, count: int) -> list[str]:
    orders = [client.orders.create(user_id=user_id, items=[ITEM]) for _ in range(count)]
    return [order.id for order in await asyncio.gather(*orders)]


async def take(watch: Any, count: int) -> list[OrderEvent]:
    return [await anext(watch) for _ in range(count)]


def by_order(events: Iterable[OrderEvent]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for event in events:
        found[event.order_id].append(event.id)
    return found


async def watch_into(client: AsyncClient, seen: list[OrderEvent]) -> None:
    async with client.orders.watch(start="earliest") as watch:
        async for event in watch:
            seen.append(event)  # noqa: PERF401 - others look at the list meanwhile


def watch_in_thread(address: str, seen: list[OrderEvent], count: int) -> None:
    with Client(address) as client:
        for event in client.orders.watch(start="earliest"):
            seen.append(event)
            if len(seen) == count:
                return


async def write_orders(client: AsyncClient, user_id: str, count: int) -> None:
    for _ in range(count):
        order = await client.orders.create(user_id=user_id, items=[ITEM])
        await client.orders.confirm(order.id)
        await client.orders.process(order.id)


async def timelines(client: AsyncClient) -> dict[str, list[str]]:
    """Return the ids of the events of each order."""
    orders = [order async for order in client.orders.list()]
    return {order.id: [event.id async for event in client.orders.list_events(order_id=order.id)] for order in orders}


async def test_a_watch_survives_a_killed_server_without_gaps_and_repeats(database_url: str) -> None:
    """Of both clients: one on the event loop, the other in a thread."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    seen: list[OrderEvent] = []
    seen_in_thread: list[OrderEvent] = []
    async with AsyncClient(address, timeout=60.0) as client:
        async with serving(database_url, port) as server:
            watching = asyncio.create_task(watch_into(client, seen))
            in_thread = asyncio.create_task(asyncio.to_thread(watch_in_thread, address, seen_in_thread, 240))
            user_id = await create_user(client)
            writing = asyncio.gather(*(write_orders(client, user_id, 20) for _ in range(4)))
            await eventually(lambda: len(seen) > 100, 60)
            server.kill()
        async with serving(database_url, port):
            await writing
            await in_thread
            await eventually(lambda: len(seen) >= 240, 60)
            expected = await timelines(client)
            # A repeated event would come before that of this order.
            await create_orders(client, user_id, 1)
            await eventually(lambda: seen[-1].order_id not in expected, 60)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    assert by_order(seen[:-1]) == by_order(seen_in_thread) == expected
    assert sum(map(len, expected.values())) == 240


async def test_an_event_comes_again_unless_its_program_has_asked_for_the_next_one(
    client: AsyncClient, tmp_path: Path
) -> None:
    store = FileCursorStore(tmp_path / "cursor")
    user_id = await create_user(client)
    first, second, third = await create_orders(client, user_id, 3)
    async with client.orders.watch(start="earliest", cursor_store=store) as watch:
        handled, failed = await take(watch, 2)
    async with client.orders.watch(start="earliest", cursor_store=store) as watch:
        again, last = await take(watch, 2)
        await watch.commit()
    assert again.id == failed.id
    assert {handled.order_id, failed.order_id, last.order_id} == {first, second, third}
    await create_orders(client, user_id, 1)
    async with client.orders.watch(cursor_store=store) as watch:
        assert (await anext(watch)).order_id not in {first, second, third}
    assert os.listdir(tmp_path) == ["cursor"]  # noqa: PTH208 - a list, without waiting


async def test_cursors_are_stored_by_functions_and_coroutines(client: AsyncClient, service: Service) -> None:
    stored: list[str] = []

    async def load() -> str | None:
        return stored[-1] if stored else None

    async def save(cursor: str) -> None:
        stored.append(cursor)

    user_id = await create_user(client)
    orders = await create_orders(client, user_id, 3)
    watch = client.orders.watch(start="earliest", cursor_store=AsyncCallableCursorStore(load, save))
    seen = await take(watch, 2)
    await watch.aclose()
    assert len(stored) == 1

    def in_thread() -> None:
        store = CallableCursorStore(lambda: stored[-1], stored.append)
        with Client(service.address) as blocking, blocking.orders.watch(cursor_store=store) as watch:
            seen.extend([next(watch), next(watch)])
            watch.commit()

    await asyncio.to_thread(in_thread)
    assert seen[1] == seen[2]
    assert {event.order_id for event in seen} == {*orders}
    assert len(stored) == 3


async def test_the_interval_between_stored_cursors_loses_none_when_a_watch_is_closed(client: AsyncClient) -> None:
    user_id = await create_user(client)
    await create_orders(client, user_id, 4)
    store = MemoryCursorStore()
    async with client.orders.watch(start="earliest", cursor_store=store, save_interval=1000) as watch:
        await take(watch, 1)
        first = watch.cursor
        await take(watch, 2)
        assert store.cursor == first
        second = watch.cursor
        await anext(watch)
    assert store.cursor == second


async def test_only_matching_events_come(client: AsyncClient) -> None:
    ada, bob = await create_user(client), await create_user(client, "bob")
    async with (
        client.orders.watch(user_ids=[bob], statuses=["CONFIRMED"]) as orders,
        client.users.watch(types=["UPDATED"]) as users,
    ):
        await create_orders(client, ada, 1)
        (order_id,) = await create_orders(client, bob, 1)
        await client.orders.confirm(order_id)
        await client.users.update(bob, full_name="Bob")
        assert (await anext(orders)).order_id == order_id
        assert (await anext(users)).user_id == bob


async def test_after_a_gap_a_watch_goes_on_from_the_earliest_event(database_url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=1)
    async with (
        running_server(database_url) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        driver_connection(database_url) as connection,
        client.orders.watch() as watch,
    ):
        begin = watch.cursor
        assert begin is None
        events = await insert_events(connection, 3)
        assert [event.id for event in await take(watch, 2)] == events[:2]
        cursor = watch.cursor
        assert cursor is not None
        assert await delete_expired_events(engine, timedelta(0)) == 3
        kept = await insert_events(connection, 2)
        watch.continue_from(cursor)
        with pytest.raises(CursorExpired) as gap:
            await anext(watch)
        watch.continue_from(gap.value.earliest)
        assert [event.id for event in await take(watch, 2)] == kept
        # Events that it has delivered before are left out.
        watch.continue_from(gap.value.earliest)
        (new,) = await insert_events(connection, 1)
        assert (await anext(watch)).id == new
    await engine.dispose()


@pytest.fixture(scope="module")
def limited() -> Iterator[Services]:
    """Services that accept one watch at a time, and send a checkpoint only when a watch begins."""
    with Services({"COMMERCE_MAX_WATCHES": "1", "COMMERCE_WATCH_CHECKPOINT_INTERVAL": "1000"}) as services:
        yield services


async def test_a_connection_without_checkpoints_is_given_up(
    limited: Services, caplog: pytest.LogCaptureFixture
) -> None:
    with limited.open() as service:
        async with AsyncClient(service.address) as client:
            user_id = await create_user(client)
            with caplog.at_level(logging.WARNING, "commerce.client"):
                async with client.orders.watch(stall_timeout=0.2) as watch:
                    waiting = asyncio.create_task(anext(watch))
                    await eventually(lambda: "nothing has arrived for 0.2 s" in caplog.text, 60)
                    (order_id,) = await create_orders(client, user_id, 1)
                    assert (await waiting).order_id == order_id

        def in_thread() -> None:
            with Client(service.address) as blocking, blocking.orders.watch(stall_timeout=0.2) as watch:
                assert next(watch).order_id != order_id

        async with AsyncClient(service.address) as client:
            caplog.clear()
            watching = asyncio.create_task(asyncio.to_thread(in_thread))
            await eventually(lambda: "nothing has arrived for 0.2 s" in caplog.text, 60)
            await create_orders(client, user_id, 1)
            await watching


async def test_a_cancelled_wait_loses_no_event(client: AsyncClient) -> None:
    user_id = await create_user(client)
    async with client.orders.watch() as watch:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.05)
        orders = await create_orders(client, user_id, 2)
        assert {event.order_id for event in await take(watch, 2)} == {*orders}


async def test_a_watch_that_is_closed_ends(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        by_itself, by_client = client.orders.watch(), client.orders.watch()
        waiting = [asyncio.create_task(anext(watch, None)) for watch in (by_itself, by_client)]
        await asyncio.sleep(0.1)
        await by_itself.aclose()
        assert await waiting[0] is None
        await client.close()
        assert await waiting[1] is None
        assert [event async for event in by_itself] == []


async def test_a_watch_in_a_thread_that_is_closed_ends(service: Service) -> None:
    with Client(service.address) as client:
        watch = client.orders.watch()
        waiting = asyncio.create_task(asyncio.to_thread(next, watch, None))
        await asyncio.sleep(0.1)
        watch.close()
        assert await waiting is None
        waiting = asyncio.create_task(asyncio.to_thread(next, client.orders.watch(), None))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(client.close)
        assert await waiting is None


async def test_a_watch_that_is_closed_while_it_opens_takes_no_place(limited: Services) -> None:
    asked, given = Event(), Event()

    def token() -> str:
        asked.set()
        given.wait(10)
        return "any"

    async def async_token() -> str:
        return await asyncio.to_thread(token)

    with limited.open() as service, Client(service.address, token=token) as blocking:
        watch = blocking.orders.watch()
        waiting = asyncio.create_task(asyncio.to_thread(next, watch, None))
        assert await asyncio.to_thread(asked.wait, 5)
        watch.close()
        given.set()
        assert await waiting is None
        asked.clear()
        given.clear()
        async with AsyncClient(service.address, token=async_token) as client:
            async_watch = client.orders.watch()
            waiting = asyncio.create_task(anext(async_watch, None))
            assert await asyncio.to_thread(asked.wait, 5)
            await async_watch.aclose()
            given.set()
            assert await waiting is None
            # Neither call lives on in the only place, although the program keeps both watches.
            async with AsyncClient(service.address) as other, other.orders.watch(connect_timeout=3):
                assert (watch.cursor, async_watch.cursor) == (None, None)


async def test_a_watch_that_is_left_gives_its_place_back(limited: Services) -> None:
    with limited.open() as service:
        async with AsyncClient(service.address) as client:
            user_id = await create_user(client)
            await create_orders(client, user_id, 2)
            for _ in range(3):
                async for event in client.orders.watch(start="earliest", connect_timeout=5):
                    assert event.order_id
                    break
                gc.collect()

        def in_thread() -> None:
            with Client(service.address) as client:
                for _ in range(3):
                    for event in client.orders.watch(start="earliest", connect_timeout=5):
                        assert event.order_id
                        break

        await asyncio.to_thread(in_thread)


async def test_what_cannot_be_watched_is_an_error_at_once(client: AsyncClient, service: Service) -> None:
    with pytest.raises(InvalidCursor):
        await anext(client.orders.watch(cursor="nonsense"))
    with pytest.raises(TypeError, match="no option timeout"):
        client.orders.watch(timeout=3)  # type: ignore[call-arg] # the point of this test
    with pytest.raises(ValueError, match="start must be 'now' or 'earliest', not 'later'"):
        client.orders.watch(start="later")  # type: ignore[arg-type] # the point of this test
    service.stop()
    try:
        with pytest.raises(Unavailable):
            async with client.orders.watch(connect_timeout=0.3):
                pass
        with Client(service.address) as blocking, pytest.raises(Unavailable):
            await asyncio.to_thread(next, blocking.orders.watch(connect_timeout=0.3))
    finally:
        service.start()


async def test_an_outage_longer_than_allowed_is_an_error(client: AsyncClient, service: Service) -> None:
    async with client.orders.watch(reconnect_timeout=0.3) as watch:
        service.stop()
        with pytest.raises(Unavailable):
            await anext(watch)
        service.start()
        user_id = await create_user(client)
        (order_id,) = await create_orders(client, user_id, 1)
        assert (await anext(watch)).order_id == order_id
