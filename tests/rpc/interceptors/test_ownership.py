import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from grpc import StatusCode

from service.rpc.identity.permissions import authorization_of, can_be_limited, methods
from tests.support.clients import Clients, new_order
from tests.support.databases import driver_connection
from tests.support.failures import Failure, fails
from tests.support.locks import until_blocked
from tests.support.methods import ALL_METHODS
from tests.support.passwords import PASSWORD
from tests.support.policies import EVERYTHING, EVERYTHING_OWN, Guarded, guarded_server

NEEDED = {method.name: authorization_of(method).permission for method in methods()}
POLICY = {"key:all": EVERYTHING, "key:own": EVERYTHING_OWN}


@pytest.fixture(scope="module")
async def guarded(
    postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("policy")
    async with guarded_server(postgres_url, template_url, folder, POLICY, watch_checkpoint_interval=0.1) as guarded:
        yield guarded


@pytest.fixture(scope="module")
async def everything(guarded: Guarded) -> Clients:
    return await guarded.clients_of("all")


@dataclass(frozen=True)
class Things:
    """A user, with an order and a draft about it."""

    user: User
    order: Order
    note: OrderNote


async def things_of(clients: Clients, user: User) -> Things:
    order = await clients.create_order(user.id)
    note = OrderNote(order_id=order.id, author_id=user.id, body="fragile")
    request = orders_pb.CreateOrderNoteRequest(note=note)
    return Things(user, order, (await clients.orders.CreateOrderNote(request)).note)


async def new_things(clients: Clients) -> Things:
    return await things_of(clients, await clients.create_user())


def missing_things() -> Things:
    """Return things that do not exist."""
    user = User(id=str(uuid4()), email=f"{uuid4().hex}@example.com", username=f"u{uuid4().hex[:20]}")
    order = Order(id=str(uuid4()), user_id=user.id, order_number=f"ORD-{uuid4().hex[:8]}")
    return Things(user, order, OrderNote(id=str(uuid4()), order_id=order.id, author_id=user.id))


@contextmanager
def denied_own(method: str) -> Iterator[Failure]:
    """Require that the block is denied because the call is limited to one user."""
    with fails(StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as failure:
        yield failure
    assert failure.metadata == {"permission": NEEDED[method], "identity": "key:own"}


def status_of(failure: Failure) -> tuple[StatusCode, str, Any]:
    """Return all of a status; the other trailers have an id of the call."""
    assert set(failure.trailers) <= {"grpc-status-details-bin", "x-request-id", "content-type"}
    return failure.code, failure.message, failure.trailers["grpc-status-details-bin"]


def request_id() -> str:
    return str(uuid4())


# For every method that can be limited, requests that refer to the things of a user in each way.
REQUESTS: list[tuple[str, Callable[[Things], Any]]] = [
    ("GetUser", lambda of: users_pb.GetUserRequest(id=of.user.id)),
    ("GetUser", lambda of: users_pb.GetUserRequest(id=of.user.id.upper())),
    ("GetUser", lambda of: users_pb.GetUserRequest(email=of.user.email.upper())),
    ("GetUser", lambda of: users_pb.GetUserRequest(username=of.user.username.upper())),
    ("BatchGetUsers", lambda of: users_pb.BatchGetUsersRequest(ids=[of.user.id])),
    ("WatchUsers", lambda of: users_pb.WatchUsersRequest(now=True, user_ids=[of.user.id])),
    ("UpdateUser", lambda of: users_pb.UpdateUserRequest(user=User(id=of.user.id, full_name="Grace Hopper"))),
    ("UpdateUser", lambda of: users_pb.UpdateUserRequest(user=User(id=of.user.id), request_id=request_id())),
    ("SetPassword", lambda of: users_pb.SetPasswordRequest(id=of.user.id, password=PASSWORD)),
    ("GetCreditBalance", lambda of: users_pb.GetCreditBalanceRequest(user_id=of.user.id)),
    ("ListCreditEntries", lambda of: users_pb.ListCreditEntriesRequest(user_id=of.user.id)),
    ("CreateOrder", lambda of: orders_pb.CreateOrderRequest(order=new_order(of.user.id))),
    ("CreateOrder", lambda of: orders_pb.CreateOrderRequest(order=new_order(of.user.id), request_id=request_id())),
    ("CreateOrder", lambda of: orders_pb.CreateOrderRequest(order=new_order(of.user.id), validate_only=True)),
    ("GetOrder", lambda of: orders_pb.GetOrderRequest(id=of.order.id)),
    ("GetOrder", lambda of: orders_pb.GetOrderRequest(order_number=of.order.order_number)),
    ("BatchGetOrders", lambda of: orders_pb.BatchGetOrdersRequest(ids=[of.order.id, of.order.id])),
    ("ListOrders", lambda of: orders_pb.ListOrdersRequest(user_id=of.user.id)),
    ("ListOrderEvents", lambda of: orders_pb.ListOrderEventsRequest(order_id=of.order.id)),
    ("GetOrderStatistics", lambda of: orders_pb.GetOrderStatisticsRequest(user_id=of.user.id)),
    ("ExportOrders", lambda of: orders_pb.ExportOrdersRequest(user_id=of.user.id)),
    ("WatchOrders", lambda of: orders_pb.WatchOrdersRequest(now=True, user_ids=[of.user.id])),
    ("UpdateOrder", lambda of: orders_pb.UpdateOrderRequest(order=Order(id=of.order.id, external_ref=request_id()))),
    ("UpdateOrder", lambda of: orders_pb.UpdateOrderRequest(order=of.order, validate_only=True)),
    ("AddOrderTags", lambda of: orders_pb.AddOrderTagsRequest(id=of.order.id, tags=["gift"])),
    ("RemoveOrderTags", lambda of: orders_pb.RemoveOrderTagsRequest(id=of.order.id, tags=["gift"])),
    ("CancelOrder", lambda of: orders_pb.CancelOrderRequest(id=of.order.id, reason="late")),
    ("CreateOrderNote", lambda of: orders_pb.CreateOrderNoteRequest(note=of.note)),
    ("UpdateOrderNote", lambda of: orders_pb.UpdateOrderNoteRequest(note=OrderNote(id=of.note.id, body="glass"))),
    ("PublishOrderNote", lambda of: orders_pb.PublishOrderNoteRequest(id=of.note.id)),
    ("DeleteOrderNote", lambda of: orders_pb.DeleteOrderNoteRequest(id=of.note.id)),
    ("DeleteOrderNote", lambda of: orders_pb.DeleteOrderNoteRequest(id=of.note.id, request_id=request_id())),
    ("ListOrderNotes", lambda of: orders_pb.ListOrderNotesRequest(author_id=of.user.id, include_drafts=True)),
    ("ListOrderNotes", lambda of: orders_pb.ListOrderNotesRequest(order_id=of.order.id, include_drafts=True)),
    ("SearchOrderNotes", lambda of: orders_pb.SearchOrderNotesRequest(query="fragile", author_id=of.user.id)),
    ("SearchOrderNotes", lambda of: orders_pb.SearchOrderNotesRequest(query="fragile", order_id=of.order.id)),
]
every_request = pytest.mark.parametrize(
    ("method", "request_about"), REQUESTS, ids=[f"{number}-{method}" for number, (method, _) in enumerate(REQUESTS)]
)


async def answers(clients: Clients, method: str, request: Any) -> Sequence[Any]:
    """Make a call, and return its response; of a watch the first one, of an export all."""
    service = clients.users if method in dir(clients.users) else clients.orders
    answer = getattr(service, method)(request)
    if not ALL_METHODS[method].server_streaming:
        return [await answer]
    if method.startswith("Watch"):
        return [await answer.read()] if await answer.read() is not grpc.aio.EOF else []
    return [response async for response in answer]


def test_every_method_that_can_be_limited_is_tested() -> None:
    assert {method for method, _ in REQUESTS} == {method.name for method in methods() if can_be_limited(method)}


@every_request
async def test_what_belongs_to_the_user_is_allowed(
    guarded: Guarded, everything: Clients, method: str, request_about: Callable[[Things], Any]
) -> None:
    mine = await new_things(everything)
    clients = await guarded.clients_of("own", mine.user.id)
    assert await answers(clients, method, request_about(mine))


@every_request
async def test_what_belongs_to_others_is_denied_as_what_does_not_exist(
    guarded: Guarded, everything: Clients, method: str, request_about: Callable[[Things], Any]
) -> None:
    mine, other = await new_things(everything), await new_things(everything)
    clients = await guarded.clients_of("own", mine.user.id)
    before = await snapshot(guarded)
    with denied_own(method) as of_other:
        await answers(clients, method, request_about(other))
    with denied_own(method) as of_nobody:
        await answers(clients, method, request_about(missing_things()))
    assert status_of(of_other) == status_of(of_nobody)
    assert of_other.message == (
        f"the permission {NEEDED[method]} is missing for key:own: it is granted only for what belongs to user"
        f" {mine.user.id}, and the request names something else, or nothing"
    )
    assert await snapshot(guarded) == before


async def snapshot(guarded: Guarded) -> list[Any]:
    """Return what calls could have changed."""
    tables = ("users", "user_passwords", "orders", "order_notes", "order_tags", "events", "request_ids")
    sums = ", ".join(
        f"(SELECT (count(*), sum(hashtextextended(t::text, 0)))::text FROM {table} t) AS {table}" for table in tables
    )
    return list(await guarded.connection.fetchrow(f"SELECT {sums}"))


async def test_no_other_error_tells_that_something_exists(guarded: Guarded, everything: Clients) -> None:
    mine, other = await new_things(everything), await new_things(everything)
    clients = await guarded.clients_of("own", mine.user.id)
    await everything.orders.PublishOrderNote(orders_pb.PublishOrderNoteRequest(id=other.note.id))
    await everything.orders.CancelOrder(orders_pb.CancelOrderRequest(id=other.order.id, reason="late"))
    missing = missing_things()
    requests: list[tuple[str, Callable[[Things], Any]]] = [
        ("PublishOrderNote", lambda of: orders_pb.PublishOrderNoteRequest(id=of.note.id)),
        ("CancelOrder", lambda of: orders_pb.CancelOrderRequest(id=of.order.id, reason="late")),
        ("CancelOrder", lambda of: orders_pb.CancelOrderRequest(id=of.order.id, reason="late", etag="wrong")),
        ("UpdateUser", lambda of: users_pb.UpdateUserRequest(user=User(id=of.user.id, username=other.user.username))),
        ("BatchGetOrders", lambda of: orders_pb.BatchGetOrdersRequest(ids=[mine.order.id, of.order.id])),
        ("BatchGetUsers", lambda of: users_pb.BatchGetUsersRequest(ids=[mine.user.id, of.user.id])),
        ("WatchOrders", lambda of: orders_pb.WatchOrdersRequest(now=True, user_ids=[mine.user.id, of.user.id])),
        (
            "CreateOrderNote",
            lambda of: orders_pb.CreateOrderNoteRequest(
                note=OrderNote(order_id=of.order.id, author_id=mine.user.id, body="x")
            ),
        ),
        (
            "CreateOrderNote",
            lambda of: orders_pb.CreateOrderNoteRequest(
                note=OrderNote(order_id=mine.order.id, author_id=of.user.id, body="x")
            ),
        ),
        (
            "ListOrderNotes",
            lambda of: orders_pb.ListOrderNotesRequest(order_id=of.order.id, author_id=mine.user.id),
        ),
    ]
    for method, request_about in requests:
        with denied_own(method) as of_other:
            await answers(clients, method, request_about(other))
        with denied_own(method) as of_nobody:
            await answers(clients, method, request_about(missing))
        assert status_of(of_other) == status_of(of_nobody), method


async def test_a_request_for_nothing_is_denied(guarded: Guarded, everything: Clients) -> None:
    user = await everything.create_user()
    clients = await guarded.clients_of("own", user.id)
    with denied_own("UpdateUser"):
        await clients.users.UpdateUser(users_pb.UpdateUserRequest(user=User(full_name="Grace Hopper")))
    with denied_own("CreateOrder"):
        await clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=new_order("")))


# Lists, searches, exports and watches


async def test_lists_without_a_filter_have_only_what_belongs_to_the_user(guarded: Guarded, everything: Clients) -> None:
    mine, other = await new_things(everything), await new_things(everything)
    second = await everything.create_order(mine.user.id)
    staff_note = OrderNote(order_id=mine.order.id, author_id=other.user.id, body="fragile, says another")
    await everything.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=staff_note))
    clients = await guarded.clients_of("own", mine.user.id)
    first_page = await clients.orders.ListOrders(orders_pb.ListOrdersRequest(page_size=1, include_total_size=True))
    assert first_page.total_size == 2
    next_request = orders_pb.ListOrdersRequest(
        page_size=1, include_total_size=True, page_token=first_page.next_page_token
    )
    next_page = await clients.orders.ListOrders(next_request)
    assert {first_page.orders[0].id, next_page.orders[0].id} == {mine.order.id, second.id}
    assert next_page.next_page_token == ""
    exported = [
        order.id
        async for response in clients.orders.ExportOrders(orders_pb.ExportOrdersRequest())
        for order in response.orders
    ]
    assert exported == [mine.order.id, second.id]
    for order_id in ("", mine.order.id):
        notes = orders_pb.ListOrderNotesRequest(include_drafts=True, order_id=order_id)
        listed = await clients.orders.ListOrderNotes(notes)
        assert [note.id for note in listed.notes] == [mine.note.id]
        search = orders_pb.SearchOrderNotesRequest(query="fragile", include_drafts=True, order_id=order_id)
        found = await clients.orders.SearchOrderNotes(search)
        assert [match.note.id for match in found.matches] == [mine.note.id]
    statistics = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest())
    assert [(top.user_id, top.order_count) for top in statistics.top_users] == [(mine.user.id, 2)]
    assert sum(row.order_count for row in statistics.statistics) == 2


async def test_a_page_token_of_another_user_is_refused(guarded: Guarded, everything: Clients) -> None:
    mine, other = await new_things(everything), await new_things(everything)
    await everything.create_order(other.user.id)
    page = await (await guarded.clients_of("own", other.user.id)).orders.ListOrders(
        orders_pb.ListOrdersRequest(page_size=1)
    )
    assert page.next_page_token
    clients = await guarded.clients_of("own", mine.user.id)
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await clients.orders.ListOrders(orders_pb.ListOrdersRequest(page_token=page.next_page_token))


async def test_a_watch_without_a_filter_has_only_events_of_the_user(guarded: Guarded, everything: Clients) -> None:
    mine, other = await new_things(everything), await new_things(everything)
    clients = await guarded.clients_of("own", mine.user.id)
    of_orders = clients.orders.WatchOrders(orders_pb.WatchOrdersRequest(now=True))
    of_users = clients.users.WatchUsers(users_pb.WatchUsersRequest(now=True))
    await of_orders.read()
    await of_users.read()
    for things in (other, mine):
        transfer = orders_pb.CancelOrderRequest(id=things.order.id, reason="late")
        await everything.orders.CancelOrder(transfer)
        await everything.users.DeactivateUser(users_pb.DeactivateUserRequest(id=things.user.id))
    assert (await first_event(of_orders)).order_id == mine.order.id
    assert (await first_event(of_users)).user_id == mine.user.id
    of_orders.cancel()
    of_users.cancel()


async def first_event(watch: Any) -> Any:
    async with asyncio.timeout(20):
        while True:
            response = await watch.read()
            if response.HasField("event"):
                return response.event


# Orders that change hands


async def test_an_order_goes_to_its_new_owner_with_its_timeline(guarded: Guarded, everything: Clients) -> None:
    old, new = await new_things(everything), await everything.create_user()
    transfer = orders_pb.TransferOrdersRequest(from_user_id=old.user.id, to_user_id=new.id)
    await everything.orders.TransferOrders(transfer)
    of_old, of_new = await guarded.clients_of("own", old.user.id), await guarded.clients_of("own", new.id)
    timeline = orders_pb.ListOrderEventsRequest(order_id=old.order.id)
    events = (await of_new.orders.ListOrderEvents(timeline)).events
    assert {event.user_id for event in events} == {old.user.id, new.id}
    assert (await of_new.orders.GetOrder(orders_pb.GetOrderRequest(id=old.order.id))).order.user_id == new.id
    with denied_own("ListOrderEvents"):
        await of_old.orders.ListOrderEvents(timeline)
    # A note belongs to its author.
    notes = orders_pb.ListOrderNotesRequest(include_drafts=True)
    assert [note.id for note in (await of_old.orders.ListOrderNotes(notes)).notes] == [old.note.id]
    assert not (await of_new.orders.ListOrderNotes(notes)).notes


async def test_a_call_that_waited_for_a_transfer_is_denied_and_rolled_back(
    guarded: Guarded, everything: Clients
) -> None:
    mine, other = await new_things(everything), await everything.create_user()
    clients = await guarded.clients_of("own", mine.user.id)
    for method, request in (
        ("AddOrderTags", orders_pb.AddOrderTagsRequest(id=mine.order.id, tags=["gift"], request_id=request_id())),
        ("CancelOrder", orders_pb.CancelOrderRequest(id=mine.order.id, reason="late", request_id=request_id())),
    ):
        async with driver_connection(guarded.database_url) as connection:
            transaction = connection.transaction()
            await transaction.start()
            # As TransferOrders does.
            await connection.execute(
                "UPDATE orders SET user_id = $2, version = version + 1 WHERE id = $1", mine.order.id, other.id
            )
            calling = asyncio.ensure_future(answers(clients, method, request))
            await until_blocked(connection)
            await transaction.commit()
            before = await snapshot(guarded)
            with denied_own(method):
                await calling
            assert await snapshot(guarded) == before
            await connection.execute(
                "UPDATE orders SET user_id = $2, version = version + 1 WHERE id = $1", mine.order.id, mine.user.id
            )
        # The request id is free again.
        assert await answers(clients, method, request)


async def test_a_timeline_that_was_read_after_a_transfer_is_denied(guarded: Guarded, everything: Clients) -> None:
    mine, other = await new_things(everything), await everything.create_user()
    await everything.orders.TransferOrders(
        orders_pb.TransferOrdersRequest(from_user_id=mine.user.id, to_user_id=other.id)
    )
    clients = await guarded.clients_of("own", other.id)
    async with driver_connection(guarded.database_url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        request = orders_pb.ListOrderEventsRequest(order_id=mine.order.id)
        calling = asyncio.ensure_future(clients.orders.ListOrderEvents(request))
        await until_blocked(connection)
        await connection.execute("UPDATE orders SET user_id = $2 WHERE id = $1", mine.order.id, mine.user.id)
        await transaction.commit()
        with denied_own("ListOrderEvents"):
            await calling


# Repeated calls


async def test_a_deletion_can_be_repeated(guarded: Guarded, everything: Clients) -> None:
    mine = await new_things(everything)
    clients = await guarded.clients_of("own", mine.user.id)
    request = orders_pb.DeleteOrderNoteRequest(id=mine.note.id, request_id=request_id())
    first = await clients.orders.DeleteOrderNote(request)
    assert await clients.orders.DeleteOrderNote(request) == first
    # Another user has other request ids.
    other = await guarded.clients_of("own", (await everything.create_user()).id)
    with denied_own("DeleteOrderNote"):
        await other.orders.DeleteOrderNote(request)
    with denied_own("DeleteOrderNote"):
        await clients.orders.DeleteOrderNote(orders_pb.DeleteOrderNoteRequest(id=mine.note.id, request_id=request_id()))
    with denied_own("DeleteOrderNote"):
        await clients.orders.DeleteOrderNote(orders_pb.DeleteOrderNoteRequest(id=mine.note.id))


async def test_a_used_request_id_does_not_tell_whether_something_exists(guarded: Guarded, everything: Clients) -> None:
    mine, other = await new_things(everything), await new_things(everything)
    clients = await guarded.clients_of("own", mine.user.id)
    used = request_id()
    cancel = orders_pb.CancelOrderRequest(id=mine.order.id, reason="late", request_id=used)
    await clients.orders.CancelOrder(cancel)
    statuses = []
    for order_id in (other.order.id, str(uuid4())):
        with denied_own("CancelOrder") as failure:
            await clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=order_id, reason="late", request_id=used))
        statuses.append(status_of(failure))
    assert statuses[0] == statuses[1]


async def test_an_answer_is_repeated_after_a_transfer(guarded: Guarded, everything: Clients) -> None:
    """It is about the order as it was when it belonged to the user."""
    mine, other = await new_things(everything), await everything.create_user()
    clients = await guarded.clients_of("own", mine.user.id)
    cancel = orders_pb.CancelOrderRequest(id=mine.order.id, reason="late", request_id=request_id())
    first = await clients.orders.CancelOrder(cancel)
    await everything.orders.TransferOrders(
        orders_pb.TransferOrdersRequest(from_user_id=mine.user.id, to_user_id=other.id)
    )
    assert await clients.orders.CancelOrder(cancel) == first


async def test_a_stored_answer_about_others_is_not_repeated_once_the_caller_is_limited(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    policy = {"key:all": EVERYTHING, "key:own": EVERYTHING}
    async with guarded_server(postgres_url, template_url, tmp_path, policy) as guarded:
        everything = await guarded.clients_of("all")
        other, user = await new_things(everything), await everything.create_user()
        clients = await guarded.clients_of("own", user.id)
        cancel = orders_pb.CancelOrderRequest(id=other.order.id, reason="late", request_id=request_id())
        first = await clients.orders.CancelOrder(cancel)
        assert await clients.orders.CancelOrder(cancel) == first
        guarded.change_policy({"key:own": EVERYTHING_OWN})
        with denied_own("CancelOrder"):
            await clients.orders.CancelOrder(cancel)
        # Nor is the order, if it has become the user's meanwhile: the answer is from before.
        await guarded.connection.execute("UPDATE orders SET user_id = $2 WHERE id = $1", other.order.id, user.id)
        with denied_own("CancelOrder"):
            await clients.orders.CancelOrder(cancel)
