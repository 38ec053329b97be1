"""Answers stay below the maximum size of a response: lists end early, and batches are refused before they are built."""

import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import OrderItem
from commerce.orders.v1.order_service_pb2 import ListOrdersOrderBy
from commerce.users.v1.user_pb2 import UserProfile
from commerce.users.v1.user_service_pb2 import ListUsersOrderBy
from google.type.money_pb2 import Money
from grpc import StatusCode

from service.application.ports.queries import Page
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.reads.orders import OrderQueries
from service.db.reads.reader import Reader
from tests.support.clients import Clients
from tests.support.failures import fails
from tests.support.servers import OwnServer, own_server

MAX_RESPONSE_BYTES = 50_000
COUNT = 12


@pytest.fixture(scope="module")
async def own(postgres_url: str, template_url: str) -> AsyncIterator[OwnServer]:
    """A server with a small limit, and users, orders and notes that exceed it together."""
    async with own_server(postgres_url, template_url, max_response_bytes=MAX_RESPONSE_BYTES) as own:
        profile = UserProfile(bio="märz " * 200)
        users = [await own.clients.create_user(full_name="Wordy Writer", profile=profile) for _ in range(40)]
        orders = [
            await own.clients.create_order(
                users[0].id, items=_large_items(10), metadata={f"k{n}": "v" * 500 for n in range(6)}
            )
            for _ in range(COUNT)
        ]
        for order in orders:
            note = OrderNote(order_id=orders[0].id, author_id=users[0].id, body="fragile " + "ä" * 3900)
            created = await own.clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))
            await own.clients.orders.PublishOrderNote(orders_pb.PublishOrderNoteRequest(id=created.note.id))
            tags = [f"tag{n} " + "t" * 40 for n in range(10)]
            await own.clients.orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=order.id, tags=tags))
        yield own


def _large_items(count: int) -> list[OrderItem]:
    price = Money(currency_code="EUR", units=1)
    return [
        OrderItem(product_id=f"{number:05}" + "\U0001f600" * 95, name="名" * 200, quantity=1, unit_price=price)
        for number in range(count)
    ]


async def every_page(method: Callable[[Any], Awaitable[Any]], request: Any, field: str) -> list[list[Any]]:
    """Return the rows of all pages; each fits into a response."""
    pages = []
    while True:
        response = await method(request)
        assert response.ByteSize() <= MAX_RESPONSE_BYTES
        pages.append(list(getattr(response, field)))
        if not response.next_page_token:
            return pages
        request.page_token = response.next_page_token


@pytest.fixture(params=["encoded", "as_columns"])
async def stored(request: pytest.FixtureRequest, own: OwnServer) -> AsyncIterator[OwnServer]:
    """The server, with encoded messages or without."""
    if request.param == "encoded":
        yield own
        return
    kept = {table: await own.connection.fetch(f"SELECT id, message FROM {table}") for table in ("orders", "users")}
    for table in kept:
        await own.connection.execute(f"UPDATE {table} SET message = NULL")
    yield own
    for table, rows in kept.items():
        await own.connection.executemany(
            f"UPDATE {table} SET message = $2 WHERE id = $1",
            [(row["id"], row["message"]) for row in rows],
        )


@pytest.mark.parametrize(
    "filters",
    [{}, {"include_total_size": True}, {"tags_any": ["tag1 " + "t" * 40]}, {"order_by": 2}, {"page_size": 5}],
    ids=["newest", "with_total_size", "by_tag", "oldest", "pages_of_5"],
)
async def test_a_list_of_large_orders_has_shorter_pages(stored: OwnServer, filters: dict[str, Any]) -> None:
    pages = await every_page(stored.clients.orders.ListOrders, orders_pb.ListOrdersRequest(**filters), "orders")
    assert len({order.id for page in pages for order in page}) == COUNT
    assert sum(map(len, pages)) == COUNT
    # No shorter than they need to be: a further order would not fit, or a few more if its size is an estimate.
    least = MAX_RESPONSE_BYTES / max(order.ByteSize() for page in pages for order in page) / 2.5
    assert all(least - 1 <= len(page) for page in pages[:-1])


async def test_a_list_of_large_users_has_shorter_pages(stored: OwnServer) -> None:
    for request in (
        users_pb.ListUsersRequest(),
        users_pb.ListUsersRequest(include_total_size=True, order_by=ListUsersOrderBy.LIST_USERS_ORDER_BY_USERNAME),
    ):
        pages = await every_page(stored.clients.users.ListUsers, request, "users")
        assert len({user.id for page in pages for user in page}) == sum(map(len, pages)) == 40
        assert len(pages) < 5


async def test_a_search_for_large_users_has_shorter_pages(stored: OwnServer) -> None:
    request = users_pb.SearchUsersRequest(query="wordy", include_total_size=True)
    pages = await every_page(stored.clients.users.SearchUsers, request, "results")
    assert len({result.user.id for page in pages for result in page}) == sum(map(len, pages)) == 40


async def test_lists_of_large_notes_have_shorter_pages(own: OwnServer) -> None:
    order_id = (
        (
            await own.clients.orders.ListOrders(
                orders_pb.ListOrdersRequest(order_by=ListOrdersOrderBy.LIST_ORDERS_ORDER_BY_OLDEST)
            )
        )
        .orders[0]
        .id
    )
    request = orders_pb.ListOrderNotesRequest(order_id=order_id)
    pages = await every_page(own.clients.orders.ListOrderNotes, request, "notes")
    assert len({note.id for page in pages for note in page}) == sum(map(len, pages)) == COUNT
    search = orders_pb.SearchOrderNotesRequest(query="fragile")
    matches = await every_page(own.clients.orders.SearchOrderNotes, search, "matches")
    assert len({match.note.id for page in matches for match in page}) == sum(map(len, matches)) == COUNT


class CountingReader(Reader):
    """A reader that counts the rows that PostgreSQL sends."""

    rows_read = 0

    async def all(self, *args: Any, **options: Any) -> Sequence[Any]:
        """Return all rows of a statement, and count them."""
        rows = await super().all(*args, **options)
        self.rows_read += len(rows)
        return rows


async def test_a_list_of_large_events_has_shorter_pages(own: OwnServer) -> None:
    orders = own.clients.orders
    order_id = (await orders.ListOrders(orders_pb.ListOrdersRequest(page_size=1))).orders[0].id
    for number in range(12):
        wide = [f"{number} {n} " + "名" * 40 for n in range(10)]
        await orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=order_id, tags=wide))
        await orders.RemoveOrderTags(orders_pb.RemoveOrderTagsRequest(id=order_id, tags=wide))
    request = orders_pb.ListOrderEventsRequest(order_id=order_id, page_size=1000)
    pages = await every_page(orders.ListOrderEvents, request, "events")
    assert len(pages) > 1
    assert sum(map(len, pages)) >= 24
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=own.database_url), pool_size=1)
    reader = CountingReader(engine)
    page = Page(1000, None, include_total_size=False, max_bytes=MAX_RESPONSE_BYTES)
    found = await OrderQueries(reader).events(UUID(order_id), page)
    await reader.drain()
    await engine.dispose()
    # PostgreSQL does not send what does not fit into the page.
    assert found
    assert len(found.rows) <= reader.rows_read <= len(found.rows) + 2


async def test_an_export_of_large_orders_has_all_of_them(stored: OwnServer) -> None:
    exported = [
        order.id
        async for response in stored.clients.orders.ExportOrders(orders_pb.ExportOrdersRequest())
        for order in response.orders
    ]
    assert len(set(exported)) == len(exported) == COUNT


async def test_a_page_has_at_least_one_row(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, max_response_bytes=5000) as small:
        user = await small.clients.create_user()
        for _ in range(2):
            await small.clients.create_order(user.id, items=_large_items(2))
        pages = await every_page(small.clients.orders.ListOrders, orders_pb.ListOrdersRequest(), "orders")
        assert list(map(len, pages)) == [1, 1]


async def _ids(clients: Clients) -> list[str]:
    request = orders_pb.ListOrdersRequest(order_by=ListOrdersOrderBy.LIST_ORDERS_ORDER_BY_OLDEST)
    pages = await every_page(clients.orders.ListOrders, request, "orders")
    return [order.id for page in pages for order in page]


async def test_a_batch_that_fits_is_answered_in_order_with_its_repetitions(stored: OwnServer) -> None:
    ids = (await _ids(stored.clients))[:2]
    batch = [ids[1], ids[0], ids[1].upper()]
    found = (await stored.clients.orders.BatchGetOrders(orders_pb.BatchGetOrdersRequest(ids=batch))).orders
    assert [order.id for order in found] == [ids[1], ids[0], ids[1]]
    assert found[0] == found[2]
    users = (await stored.clients.users.ListUsers(users_pb.ListUsersRequest(page_size=2))).users
    again = users_pb.BatchGetUsersRequest(ids=[users[1].id, users[0].id, users[1].id])
    assert list((await stored.clients.users.BatchGetUsers(again)).users) == [users[1], users[0], users[1]]


async def test_a_batch_that_is_too_large_is_refused(stored: OwnServer) -> None:
    ids = await _ids(stored.clients)
    for batch in (ids, ids[:1] * 1000, [*ids, str(UUID(int=0))]):
        with fails(StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"):
            await stored.clients.orders.BatchGetOrders(orders_pb.BatchGetOrdersRequest(ids=batch))


async def test_answers_about_the_largest_orders_take_little_memory(clients: Clients) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id, items=_large_items(500)) for _ in range(8)]
    assert sum(order.ByteSize() for order in orders) > 4 * 1024 * 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with fails(StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"):
        await clients.orders.BatchGetOrders(orders_pb.BatchGetOrdersRequest(ids=[orders[0].id] * 1000))
    # The client of this process has a part in it. How many fit on a page depends on whether messages are encoded.
    request = orders_pb.ListOrdersRequest(user_id=user.id)
    listed = []
    while True:
        page = await clients.orders.ListOrders(request)
        listed += [order.id for order in page.orders]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert sorted(listed) == sorted(order.id for order in orders)
    # In kilobytes. Without the limits it was 2 GB for the batch.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
