import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

import pytest
from commerce.client import AsyncClient, Client, ClientClosed, CommerceError, to_datetime
from commerce.client.exports import ExportPosition
from commerce.client.generated.methods import EXPORT_USERS
from commerce.client.testing import Service
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2 import ExportUsersResponse

from tests.support.both_clients import ITEM
from tests.support.passwords import PASSWORD

if TYPE_CHECKING:
    from commerce.client.exports import ExportProgress

# So large that the connection holds only a part of the export.
METADATA = {f"key{number}": "x" * 500 for number in range(60)}
ORDERS = 300


async def create_orders(client: AsyncClient) -> list[str]:
    user = await client.users.create(email="ada@example.com", username="ada", password=PASSWORD)
    calls = [client.orders.create(user_id=user.id, items=[ITEM], metadata=METADATA) for _ in range(ORDERS)]
    return [order.id for order in await asyncio.gather(*calls)]


async def read_all(export: AsyncIterator[Order], orders: list[Order]) -> None:
    async for order in export:
        orders.append(order)  # noqa: PERF401 - those before an error count


def ids(orders: Iterable[Order]) -> list[str]:
    return [order.id for order in orders]


async def test_an_export_goes_on_when_the_server_stops(client: AsyncClient, service: Service) -> None:
    created = await create_orders(client)
    reports: list[ExportProgress] = []
    export = client.orders.export(progress=reports.append)
    with Client(service.address) as blocking:
        blocking_export = blocking.orders.export()
        blocking_orders = [await asyncio.to_thread(next, blocking_export)]
        orders = [await anext(export)]
        service.stop()
        service.start()
        orders += [order async for order in export]
        blocking_orders += await asyncio.to_thread(list, blocking_export)
    for found in (orders, blocking_orders):
        assert len(found) == ORDERS
        assert {*ids(found)} == {*created}
    assert export.progress.resumed == blocking_export.progress.resumed == 1
    assert [report.count for report in reports] == sorted({report.count for report in reports})
    assert reports[-1] == export.progress
    assert export.progress.count == ORDERS
    assert export.progress.create_time == to_datetime(orders[-1].create_time)


async def test_an_export_that_is_not_to_be_resumed_fails(client: AsyncClient, service: Service) -> None:
    created = await create_orders(client)
    export = client.orders.export(resume=False)
    orders = [await anext(export)]
    service.stop()
    with pytest.raises(CommerceError):
        await read_all(export, orders)
    service.start()
    # By the program itself, from the last order that it has.
    orders += [order async for order in client.orders.export(after=orders[-1])]
    assert sorted({*ids(orders)}) == sorted(created)


async def test_filters_and_batches(client: AsyncClient, service: Service) -> None:
    created = await create_orders(client)
    await client.orders.add_tags(created[0], tags=["gift"])
    assert ids([order async for order in client.orders.export(tags_any=["gift"])]) == [created[0]]
    assert [user.username async for user in client.users.export(states=["ACTIVE"])] == ["ada"]
    assert [user async for user in client.users.export(superuser=True)] == []

    def in_thread() -> None:
        with Client(service.address) as blocking:
            assert len(list(blocking.orders.export(statuses=["PENDING"]))) == ORDERS
            (user,) = blocking.users.export()
            assert list(blocking.users.export(create_time=(to_datetime(user.create_time), None))) == [user]
            with blocking.orders.export() as export:
                assert len(list(itertools.islice(export, 3))) == 3
            assert list(export) == []

    await asyncio.to_thread(in_thread)


async def test_an_export_of_a_closed_client_does_not_look_complete(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        await create_orders(client)
        export = client.orders.export()
        await anext(export)
    with pytest.raises(ClientClosed):
        await read_all(export, [])


async def test_the_time_to_connect_counts_from_the_first_read(client: AsyncClient, service: Service) -> None:
    with Client(service.address) as blocking:
        blocking_export = blocking.users.export(connect_timeout=2)
        export = client.users.export(connect_timeout=2)
        await asyncio.sleep(2.1)
        assert [user async for user in export] == []
        assert await asyncio.to_thread(list, blocking_export) == []


def test_an_export_that_needs_several_attempts_to_go_on_is_resumed_once() -> None:
    position: ExportPosition[User] = ExportPosition(EXPORT_USERS, "users", {}, None)
    position.request()
    position.arrived(ExportUsersResponse(users=[User(id="1")]))
    for _ in range(3):
        position.request()
    position.arrived(ExportUsersResponse(users=[User(id="2")]))
    assert position.progress.resumed == 1
