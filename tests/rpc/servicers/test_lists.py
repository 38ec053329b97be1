import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderStatus
from commerce.users.v1.user_pb2 import User, UserState
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from grpc import StatusCode

from tests.support.failures import fails
from tests.support.methods import call
from tests.support.requests import transition_request
from tests.support.servers import OwnServer, own_server

# Rows are written by SQL, three to each time, so that pages also end between rows of one time.
FIRST_TIME = datetime(2024, 1, 1, tzinfo=UTC)
_ROW_TIME = "timestamptz '2024-01-01 00:00Z' + (n / 3) * interval '1 minute'"
_INSERT_USERS = f"""
INSERT INTO users (id, email, username, full_name, superuser, state, undelete_state, version, create_time, update_time,
    delete_time, purge_time)
SELECT gen_random_uuid(), 'user' || n || '@example.com', md5(n::text), '', n % 5 = 0, state,
    CASE WHEN state = 'DELETED' THEN 'ACTIVE' END, 1, time, time,
    CASE WHEN state = 'DELETED' THEN time END, CASE WHEN state = 'DELETED' THEN time END
FROM generate_series(1, $1) n, LATERAL (SELECT {_ROW_TIME} AS time,
    (ARRAY['ACTIVE', 'INACTIVE', 'ACTIVE', 'DELETED'])[n % 4 + 1] AS state)
"""
_INSERT_ORDERS = f"""
WITH numbered AS (SELECT id AS user_id, row_number() OVER (ORDER BY id) AS rank, count(*) OVER () AS users FROM users)
INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, metadata, tracking_number,
    cancel_reason, version, create_time, update_time)
SELECT gen_random_uuid(), 'TEST-' || n, user_id, status, 'EUR', 1, '{{}}',
    CASE WHEN status IN ('SHIPPED', 'DELIVERED') THEN 'T' END, CASE WHEN status = 'CANCELLED' THEN 'C' END,
    1, time, time
FROM generate_series(1, $1) n JOIN numbered ON rank = n % least(users, 5) + 1, LATERAL (SELECT {_ROW_TIME} AS time,
    (ARRAY['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[n % 6 + 1] AS status)
"""
_INSERT_ITEMS = """
INSERT INTO order_items (order_id, id, product_id, name, quantity, unit_price, subtotal)
SELECT id, gen_random_uuid(), 'anvil', 'Anvil', 1, 1, 1 FROM orders
"""
ROWS = 100


async def fill(own: OwnServer, users: int, orders: int) -> None:
    async with own.connection.transaction():
        await own.connection.execute(_INSERT_USERS, users)
        await own.connection.execute(_INSERT_ORDERS, orders)
        await own.connection.execute(_INSERT_ITEMS)
    # Autovacuum has not run yet.
    await own.connection.execute("ANALYZE")


@pytest.fixture(scope="module")
async def own(postgres_url: str, template_url: str) -> AsyncIterator[OwnServer]:
    """A server with users and orders that tests only read."""
    async with own_server(postgres_url, template_url) as own:
        await fill(own, ROWS, ROWS)
        yield own


async def rows_of(own: OwnServer, method: str, *, show_deleted: bool = True) -> list[Any]:
    """Return all rows, in one page."""
    request: Any = users_pb.ListUsersRequest(page_size=1000, show_deleted=show_deleted)
    if method == "ListOrders":
        request = orders_pb.ListOrdersRequest(page_size=1000)
    response = await call(own.clients.channel, method, request)
    assert not response.next_page_token
    return listed(response)


def listed(response: Any) -> list[Any]:
    return list(response.users if "users" in response.DESCRIPTOR.fields_by_name else response.orders)


async def walk(own: OwnServer, method: str, request: Any, between: Callable[[], Awaitable[None]] | None = None) -> Any:
    """Return the pages from the first to the one without a token."""
    pages = []
    for _ in range(1000):
        response = await call(own.clients.channel, method, request)
        pages.append(response)
        if not response.next_page_token:
            return pages
        request.page_token = response.next_page_token
        if between:
            await between()
    raise AssertionError("the pages have no end")


def ids_of(rows: Iterable[Any]) -> list[str]:
    return [row.id for row in rows]


Request = Callable[..., Any]
LISTS: dict[str, Request] = {"ListUsers": users_pb.ListUsersRequest, "ListOrders": orders_pb.ListOrdersRequest}
both_lists = pytest.mark.parametrize("method", LISTS)

# The sort orders of lists, with their keys.
ORDERS = [
    pytest.param("ListUsers", 0, lambda user: (user.create_time.ToNanoseconds(), user.id), True, id="users_by_default"),
    pytest.param("ListUsers", 1, lambda user: (user.create_time.ToNanoseconds(), user.id), True, id="newest_users"),
    pytest.param("ListUsers", 2, lambda user: (user.create_time.ToNanoseconds(), user.id), False, id="oldest_users"),
    pytest.param("ListUsers", 3, lambda user: user.username, False, id="users_by_username"),
    pytest.param("ListOrders", 0, lambda order: (order.create_time.ToNanoseconds(), order.id), True, id="by_default"),
    pytest.param(
        "ListOrders", 1, lambda order: (order.create_time.ToNanoseconds(), order.id), True, id="newest_orders"
    ),
    pytest.param("ListOrders", 2, lambda order: (order.create_time.ToNanoseconds(), order.id), False, id="oldest"),
]


# Pages


@pytest.mark.parametrize("page_size", [1, 7, 50, ROWS, ROWS + 1])
@pytest.mark.parametrize(("method", "order_by", "key", "descending"), ORDERS)
async def test_pages_hold_every_row_once_and_in_order(
    own: OwnServer, method: str, order_by: int, key: Callable[[Any], Any], *, descending: bool, page_size: int
) -> None:
    request = LISTS[method](order_by=order_by, page_size=page_size)
    if method == "ListUsers":
        request.show_deleted = True
    pages = await walk(own, method, request)
    rows = [row for page in pages for row in listed(page)]
    expected = sorted(await rows_of(own, method), key=key, reverse=descending)
    assert len(expected) == ROWS
    assert rows == expected
    # The last page with rows has no token: no page is empty.
    assert len(pages) == -(-ROWS // page_size)


@both_lists
async def test_the_total_is_counted_only_when_asked_for(own: OwnServer, method: str) -> None:
    plain = await walk(own, method, LISTS[method](page_size=30))
    counted = await walk(own, method, LISTS[method](page_size=30, include_total_size=True))
    count = sum(len(listed(page)) for page in plain)
    assert {page.total_size for page in plain} == {0}
    assert {page.total_size for page in counted} == {count}
    assert [listed(page) for page in counted] == [listed(page) for page in plain]


@both_lists
async def test_an_empty_list_has_a_total_of_zero_and_no_next_page(own: OwnServer, method: str) -> None:
    nothing = Interval(end_time=Timestamp(seconds=0))
    for include_total_size in (False, True):
        request = LISTS[method](create_time=nothing, include_total_size=include_total_size)
        response = await call(own.clients.channel, method, request)
        assert (listed(response), response.next_page_token, response.total_size) == ([], "", 0)


async def test_page_sizes_default_to_50_and_stop_at_1000(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url) as own:
        # A quarter of the users are deleted.
        await fill(own, 1400, 1050)
        for method, count in (("ListUsers", 1050), ("ListOrders", 1050)):
            sizes = {}
            for page_size in (0, 999, 1000, 1001, 2**31 - 1):
                pages = await walk(own, method, LISTS[method](page_size=page_size))
                sizes[page_size] = [len(listed(page)) for page in pages]
                assert len({row.id for page in pages for row in listed(page)}) == count
            assert sizes == {
                0: [50] * 21,
                999: [999, 51],
                1000: [1000, 50],
                1001: [1000, 50],
                2**31 - 1: [1000, 50],
            }


# Tokens


@both_lists
async def test_the_page_size_may_change_from_page_to_page(own: OwnServer, method: str) -> None:
    request = LISTS[method](page_size=10)
    first = await call(own.clients.channel, method, request)
    request.page_size, request.page_token = 30, first.next_page_token
    second = await call(own.clients.channel, method, request)
    together = await call(own.clients.channel, method, LISTS[method](page_size=40))
    assert listed(first) + listed(second) == listed(together)
    assert second.next_page_token == together.next_page_token


def _set_start(request: Any) -> None:
    request.create_time.start_time.seconds = 1


ARGUMENTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "users_states": ("ListUsers", lambda request: request.states.append(UserState.USER_STATE_ACTIVE)),
    "users_create_time": ("ListUsers", _set_start),
    "users_superuser": ("ListUsers", lambda request: setattr(request, "superuser", False)),
    "users_show_deleted": ("ListUsers", lambda request: setattr(request, "show_deleted", True)),
    "users_order_by": ("ListUsers", lambda request: setattr(request, "order_by", 2)),
    "users_total_size": ("ListUsers", lambda request: setattr(request, "include_total_size", True)),
    "orders_user_id": ("ListOrders", lambda request: setattr(request, "user_id", str(uuid4()))),
    "orders_statuses": ("ListOrders", lambda request: request.statuses.append(OrderStatus.ORDER_STATUS_PENDING)),
    "orders_create_time": ("ListOrders", _set_start),
    "orders_order_by": ("ListOrders", lambda request: setattr(request, "order_by", 2)),
    "orders_tags_any": ("ListOrders", lambda request: request.tags_any.append("gift")),
    "orders_tags_all": ("ListOrders", lambda request: request.tags_all.append("gift")),
    "orders_total_size": ("ListOrders", lambda request: setattr(request, "include_total_size", True)),
}


def test_every_argument_of_a_list_is_changed_in_a_test() -> None:
    fields = {
        f"{method.removeprefix('List').lower()}_{field.name.removeprefix('include_')}"
        for method, request in LISTS.items()
        for field in request().DESCRIPTOR.fields
        if field.name not in {"page_size", "page_token"}
    }
    assert fields == set(ARGUMENTS)


@pytest.mark.parametrize(("method", "change"), ARGUMENTS.values(), ids=ARGUMENTS)
async def test_a_token_is_refused_with_another_argument(
    own: OwnServer, method: str, change: Callable[[Any], Any]
) -> None:
    request = LISTS[method](page_size=5)
    request.page_token = (await call(own.clients.channel, method, request)).next_page_token
    change(request)
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await call(own.clients.channel, method, request)


async def test_a_token_is_refused_by_another_method(own: OwnServer) -> None:
    users = await own.clients.users.ListUsers(users_pb.ListUsersRequest(page_size=5))
    orders = await own.clients.orders.ListOrders(orders_pb.ListOrdersRequest(page_size=5))
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await own.clients.orders.ListOrders(orders_pb.ListOrdersRequest(page_token=users.next_page_token))
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await own.clients.users.ListUsers(users_pb.ListUsersRequest(page_token=orders.next_page_token))


async def test_a_token_of_one_timeline_is_refused_by_another(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url) as own:
        user = await own.clients.create_user()
        requests = []
        for _ in range(2):
            order = await own.clients.create_order(user.id)
            await own.clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
            requests.append(orders_pb.ListOrderEventsRequest(order_id=order.id, page_size=1))
        token = (await own.clients.orders.ListOrderEvents(requests[0])).next_page_token
        requests[1].page_token = token
        with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
            await own.clients.orders.ListOrderEvents(requests[1])


async def test_a_token_is_refused_by_a_server_with_another_key(
    own: OwnServer, postgres_url: str, template_url: str
) -> None:
    token = (await own.clients.users.ListUsers(users_pb.ListUsersRequest(page_size=5))).next_page_token
    async with own_server(postgres_url, template_url, signing_key="k" * 32) as other:
        with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
            await other.clients.users.ListUsers(users_pb.ListUsersRequest(page_token=token))


@pytest.mark.parametrize("token", ["a", "!!!", "é", "0" * 22, "A" * 1024, "\0"], ids=ascii)
@both_lists
async def test_a_token_that_was_never_given_out_is_refused(own: OwnServer, method: str, token: str) -> None:
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await call(own.clients.channel, method, LISTS[method](page_token=token))


@both_lists
async def test_a_token_with_any_byte_changed_is_refused(own: OwnServer, method: str) -> None:
    request = LISTS[method](page_size=5)
    token = (await call(own.clients.channel, method, request)).next_page_token
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for index in range(len(data)):
        forged = bytes(byte ^ (position == index) for position, byte in enumerate(data))
        request.page_token = base64.urlsafe_b64encode(forged).decode().rstrip("=")
        with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
            await call(own.clients.channel, method, request)


# Filters

START, END = FIRST_TIME + timedelta(minutes=10), FIRST_TIME + timedelta(minutes=20)


def interval(start: datetime | None = None, end: datetime | None = None) -> Interval:
    """Return the times as a message; both ends are times of rows."""
    message = Interval()
    if start:
        message.start_time.FromDatetime(start)
    if end:
        message.end_time.FromDatetime(end)
    return message


def created(row: Any) -> datetime:
    time: datetime = row.create_time.ToDatetime(tzinfo=UTC)
    return time


def _in_states(*names: str) -> Callable[[User], bool]:
    return lambda user: UserState.Name(user.state).removeprefix("USER_STATE_") in names


ACTIVE, INACTIVE, DELETED = UserState.USER_STATE_ACTIVE, UserState.USER_STATE_INACTIVE, UserState.USER_STATE_DELETED


@pytest.mark.parametrize("include_total_size", [False, True], ids=["", "with_total_size"])
@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        pytest.param({}, _in_states("ACTIVE", "INACTIVE"), id="none"),
        pytest.param({"show_deleted": True}, lambda _: True, id="show_deleted"),
        pytest.param({"states": [ACTIVE]}, _in_states("ACTIVE"), id="active"),
        pytest.param({"states": [DELETED]}, _in_states("DELETED"), id="deleted"),
        pytest.param({"states": [INACTIVE, DELETED]}, _in_states("INACTIVE", "DELETED"), id="two_states"),
        pytest.param({"states": [ACTIVE], "show_deleted": True}, _in_states("ACTIVE"), id="states_before_show_deleted"),
        pytest.param({"superuser": True, "show_deleted": True}, lambda user: user.superuser, id="superusers"),
        pytest.param({"superuser": False, "show_deleted": True}, lambda user: not user.superuser, id="others"),
        pytest.param(
            {"create_time": interval(START, END), "show_deleted": True},
            lambda user: START <= created(user) < END,
            id="created_between",
        ),
        pytest.param(
            {"create_time": interval(START), "show_deleted": True}, lambda user: created(user) >= START, id="from"
        ),
        pytest.param(
            {"create_time": interval(None, END), "show_deleted": True}, lambda user: created(user) < END, id="before"
        ),
        pytest.param(
            {"create_time": interval(START, END), "states": [ACTIVE, DELETED], "superuser": True, "order_by": 3},
            lambda user: START <= created(user) < END and user.superuser and _in_states("ACTIVE", "DELETED")(user),
            id="all_at_once",
        ),
    ],
)
async def test_users_are_filtered(
    own: OwnServer, filters: dict[str, Any], holds: Callable[[User], bool], *, include_total_size: bool
) -> None:
    expected = {user.id for user in await rows_of(own, "ListUsers") if holds(user)}
    assert expected
    request = users_pb.ListUsersRequest(page_size=6, include_total_size=include_total_size, **filters)
    pages = await walk(own, "ListUsers", request)
    found = [user.id for page in pages for user in page.users]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert {page.total_size for page in pages} == {len(expected) if include_total_size else 0}


def _with(*names: str) -> Callable[[Order], bool]:
    return lambda order: OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_") in names


PENDING, CANCELLED = OrderStatus.ORDER_STATUS_PENDING, OrderStatus.ORDER_STATUS_CANCELLED
ALL_STATUSES = [number for number in OrderStatus.values() if number]
# A placeholder for a user of some orders, whose id is not known before the database exists.
SOME_USER = "some user"


@pytest.mark.parametrize("include_total_size", [False, True], ids=["", "with_total_size"])
@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        pytest.param({}, lambda _: True, id="none"),
        pytest.param({"user_id": SOME_USER}, lambda _: True, id="user"),
        pytest.param({"statuses": [PENDING]}, _with("PENDING"), id="pending"),
        pytest.param({"statuses": [PENDING, CANCELLED]}, _with("PENDING", "CANCELLED"), id="two_statuses"),
        pytest.param({"statuses": ALL_STATUSES}, lambda _: True, id="all_statuses"),
        pytest.param(
            {"statuses": ALL_STATUSES[:3]}, _with("PENDING", "CONFIRMED", "PROCESSING"), id="the_open_statuses"
        ),
        pytest.param(
            {"create_time": interval(START, END)}, lambda order: START <= created(order) < END, id="created_between"
        ),
        pytest.param({"create_time": interval(START)}, lambda order: created(order) >= START, id="from"),
        pytest.param({"create_time": interval(None, END)}, lambda order: created(order) < END, id="before"),
        pytest.param(
            {
                "user_id": SOME_USER,
                "statuses": ALL_STATUSES[:2],
                "create_time": interval(START, END),
                "order_by": 2,
            },
            lambda order: _with("PENDING", "CONFIRMED")(order) and START <= created(order) < END,
            id="all_at_once",
        ),
    ],
)
async def test_orders_are_filtered(
    own: OwnServer, filters: dict[str, Any], holds: Callable[[Order], bool], *, include_total_size: bool
) -> None:
    orders = await rows_of(own, "ListOrders")
    if "user_id" in filters:
        filters = {**filters, "user_id": orders[0].user_id}
        orders = [order for order in orders if order.user_id == filters["user_id"]]
    expected = {order.id for order in orders if holds(order)}
    assert expected
    request = orders_pb.ListOrdersRequest(page_size=3, include_total_size=include_total_size, **filters)
    pages = await walk(own, "ListOrders", request)
    found = [order.id for page in pages for order in page.orders]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert {page.total_size for page in pages} == {len(expected) if include_total_size else 0}


@both_lists
async def test_an_interval_includes_its_start_and_not_its_end(own: OwnServer, method: str) -> None:
    times = {created(row) for row in await rows_of(own, method, show_deleted=False)}
    start, end = sorted(times)[3], sorted(times)[6]
    found = await call(own.clients.channel, method, LISTS[method](create_time=interval(start, end)))
    assert min(map(created, listed(found))) == start
    assert max(map(created, listed(found))) == sorted(times)[5]
    empty = await call(own.clients.channel, method, LISTS[method](create_time=interval(start, start)))
    assert listed(empty) == []


@both_lists
async def test_an_interval_counts_nanoseconds(own: OwnServer, method: str) -> None:
    time = created((await rows_of(own, method, show_deleted=False))[0])
    just_after = interval(time, time + timedelta(minutes=1))
    just_after.start_time.nanos += 1
    found = await call(own.clients.channel, method, LISTS[method](create_time=just_after))
    assert time not in set(map(created, listed(found)))
    until_just_after = interval(time, time)
    until_just_after.end_time.nanos += 1
    found = await call(own.clients.channel, method, LISTS[method](create_time=until_just_after))
    assert {created(row) for row in listed(found)} == {time}


async def test_an_order_in_a_list_is_whole(own: OwnServer) -> None:
    orders = await rows_of(own, "ListOrders")
    batch = orders_pb.BatchGetOrdersRequest(ids=ids_of(orders))
    assert list((await own.clients.orders.BatchGetOrders(batch)).orders) == orders
    assert {len(order.items) for order in orders} == {1}


# Pages while others write


@pytest.mark.parametrize("order_by", [1, 2, 3], ids=["newest", "oldest", "by_username"])
async def test_users_that_existed_throughout_are_listed_once_while_others_come_and_change(
    postgres_url: str, template_url: str, order_by: int
) -> None:
    async with own_server(postgres_url, template_url) as own:
        existing = {(await own.clients.create_user()).id for _ in range(60)}
        changing = sorted(existing)

        async def write(turn: int) -> None:
            new = await own.clients.create_user()
            user = User(id=changing[turn % len(changing)], full_name=f"turn {turn}", email=f"turn{turn}@example.com")
            await own.clients.users.UpdateUser(users_pb.UpdateUserRequest(user=user))
            await own.clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=new.id))

        request = LISTS["ListUsers"](page_size=5, order_by=order_by, include_total_size=True)
        await _walk_while_writing(own, "ListUsers", request, write, existing)


@pytest.mark.parametrize("order_by", [1, 2], ids=["newest", "oldest"])
async def test_orders_that_existed_throughout_are_listed_once_while_others_come_and_change(
    postgres_url: str, template_url: str, order_by: int
) -> None:
    async with own_server(postgres_url, template_url) as own:
        user = await own.clients.create_user()
        existing = {(await own.clients.create_order(user.id)).id for _ in range(60)}
        pending = sorted(existing)

        async def write(turn: int) -> None:
            await own.clients.create_order(user.id)
            if turn < len(pending):
                await call(own.clients.channel, "ConfirmOrder", transition_request("Confirm", pending[turn]))

        request = LISTS["ListOrders"](page_size=5, order_by=order_by, user_id=user.id)
        await _walk_while_writing(own, "ListOrders", request, write, existing)


async def _walk_while_writing(
    own: OwnServer, method: str, request: Any, write: Callable[[int], Awaitable[None]], existing: set[str]
) -> None:
    """Walk the pages while a task writes, with at least one write between two pages."""
    written, walked = asyncio.Event(), asyncio.Event()

    async def write_until_walked() -> None:
        # A bounded number of writes, or a list that grows at its end would have no last page.
        for turn in range(60):
            await write(turn)
            written.set()
            if walked.is_set():
                return

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(write_until_walked())

        async def until_written() -> None:
            if not writer.done():
                written.clear()
                await written.wait()

        await until_written()
        pages = await walk(own, method, request, between=until_written)
        walked.set()
    found = [row.id for page in pages for row in listed(page)]
    assert len(found) == len(set(found))
    assert set(found) >= existing
    assert len(pages) >= len(existing) // 5
