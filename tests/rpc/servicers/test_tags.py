import asyncio
from collections.abc import Sequence
from itertools import product
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderEventType, OrderStatus
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.interval_pb2 import Interval
from structlog.testing import capture_logs

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations import migrate
from tests.support.clients import Clients
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.locks import until_blocked
from tests.support.sent_statements import sent_statements
from tests.support.servers import serving_clients

# Calls that take an order from PENDING to each status.
TO_STATUS: dict[str, Sequence[str]] = {
    "PENDING": (),
    "CONFIRMED": ("Confirm",),
    "PROCESSING": ("Confirm", "Process"),
    "SHIPPED": ("Confirm", "Process", "Ship"),
    "DELIVERED": ("Confirm", "Process", "Ship", "Deliver"),
    "CANCELLED": ("Cancel",),
}


async def place(clients: Clients, *tags: str) -> Order:
    user = await clients.create_user()
    order = await clients.create_order(user.id)
    return await add(clients, order, *tags) if tags else order


async def add(clients: Clients, order: Order, *tags: str, **fields: Any) -> Order:
    return (await clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=tags, **fields))).order


async def remove(clients: Clients, order: Order, *tags: str, **fields: Any) -> Order:
    return (await clients.orders.RemoveOrderTags(pb.RemoveOrderTagsRequest(id=order.id, tags=tags, **fields))).order


async def get(clients: Clients, order: Order) -> Order:
    return (await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order


async def changes(clients: Clients, order: Order) -> list[tuple[str, str]]:
    response = await clients.orders.ListOrderEvents(pb.ListOrderEventsRequest(order_id=order.id))
    updates = [event for event in response.events if event.type == OrderEventType.ORDER_EVENT_TYPE_UPDATED]
    assert all(change.field == "tags" for event in updates for change in event.changes)
    return [(change.old_value, change.new_value) for event in updates for change in event.changes]


async def found(clients: Clients, order: Order, **filters: Any) -> bool:
    response = await clients.orders.ListOrders(pb.ListOrdersRequest(user_id=order.user_id, **filters))
    return [each.id for each in response.orders] == [order.id]


def names(count: int, prefix: str = "") -> list[str]:
    """Return sorted names of tags that do not exist."""
    return sorted(f"{prefix}{uuid4().hex}" for _ in range(count))


async def test_tags_are_normalised_sorted_and_each_once(clients: Clients) -> None:
    order = await place(clients)
    tagged = await add(clients, order, "vip", " Gift  Wrap ", "GIFT-wrap", "ＶＩＰ", "Ångström")  # noqa: RUF001 - full width
    assert list(tagged.tags) == ["gift-wrap", "vip", "ångström"]
    assert tagged.etag != order.etag
    assert list((await remove(clients, order, "Vip", "GIFT WRAP")).tags) == ["ångström"]


async def test_every_answer_about_an_order_has_its_tags(clients: Clients) -> None:
    order = await place(clients, "b", "a")
    assert list(order.tags) == ["a", "b"]
    assert await get(clients, order) == order
    by_number = await clients.orders.GetOrder(pb.GetOrderRequest(order_number=order.order_number))
    batch = await clients.orders.BatchGetOrders(pb.BatchGetOrdersRequest(ids=[order.id]))
    listed = await clients.orders.ListOrders(pb.ListOrdersRequest(user_id=order.user_id))
    assert [by_number.order, *batch.orders, *listed.orders] == [order] * 3
    updated = await clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=Order(id=order.id, external_ref="x")))
    confirmed = await clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id))
    processed = await clients.orders.ProcessOrder(pb.ProcessOrderRequest(id=order.id))
    assert [list(each.order.tags) for each in (updated, confirmed, processed)] == [["a", "b"]] * 3


async def test_tags_of_one_order_are_not_those_of_another(clients: Clients) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id) for _ in range(3)]
    await add(clients, orders[0], "a", "both")
    await add(clients, orders[2], "c", "both")
    listed = await clients.orders.ListOrders(pb.ListOrdersRequest(user_id=user.id))
    assert [list(each.tags) for each in reversed(listed.orders)] == [["a", "both"], [], ["both", "c"]]


async def test_adding_present_tags_and_removing_absent_ones_changes_nothing(clients: Clients) -> None:
    order = await place(clients, "a", "b")
    assert await add(clients, order, "A", " b ") == order
    assert await remove(clients, order, "c", uuid4().hex) == order
    assert await get(clients, order) == order
    assert await changes(clients, order) == [("", "a, b")]


async def test_the_timeline_says_which_tags_there_were_and_are(clients: Clients) -> None:
    order = await place(clients, "b", "a")
    await add(clients, order, "a", "c")
    await remove(clients, order, "a", "x")
    await remove(clients, order, "b", "c")
    assert await changes(clients, order) == [("", "a, b"), ("a, b", "a, b, c"), ("a, b, c", "b, c"), ("b, c", "")]


@pytest.mark.parametrize("status", TO_STATUS)
async def test_an_order_is_tagged_in_every_status(clients: Clients, status: str) -> None:
    order = await place(clients, "old")
    for transition in TO_STATUS[status]:
        extra = {"Ship": {"tracking_number": "1Z"}, "Cancel": {"reason": "lost"}}.get(transition, {})
        request = getattr(pb, f"{transition}OrderRequest")(id=order.id, **extra)
        await getattr(clients.orders, f"{transition}Order")(request)
    tagged = await add(clients, order, "new")
    assert (list(tagged.tags), OrderStatus.Name(tagged.status)) == (["new", "old"], f"ORDER_STATUS_{status}")
    assert list((await remove(clients, order, "old")).tags) == ["new"]


async def test_an_order_has_at_most_fifty_tags(clients: Clients) -> None:
    order = await place(clients)
    for start in (0, 20):
        await add(clients, order, *(f"tag-{number}" for number in range(start, start + 20)))
    extra = names(11)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="tags"):
        await add(clients, order, *extra)
    assert len((await get(clients, order)).tags) == 40
    assert not (await clients.orders.ListTags(pb.ListTagsRequest(prefix=extra[0]))).tags
    assert len((await add(clients, order, *extra[:10])).tags) == 50
    assert len((await add(clients, order, extra[0], "TAG-1")).tags) == 50


@pytest.mark.parametrize(
    ("tags", "field"),
    [
        ([], "tags"),
        (["a"] * 21, "tags"),
        (["a", ""], "tags[1]"),
        (["a", "\u2003 "], "tags[1]"),
        (["x" * 51], "tags[0]"),
        (["a", "b", "x" * 201], "tags[2]"),
        (["a\nb"], "tags[0]"),
        (["\0"], "tags[0]"),
    ],
)
async def test_an_invalid_tag_is_refused(clients: Clients, tags: list[str], field: str) -> None:
    order = await place(clients)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=field):
        await add(clients, order, *tags)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=field):
        await remove(clients, order, *tags)
    if not tags:
        return
    for request in (pb.ListOrdersRequest(tags_any=tags), pb.ListOrdersRequest(tags_all=tags)):
        name = request.ListFields()[0][0].name
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=field.replace("tags", name)):
            await clients.orders.ListOrders(request)


async def test_an_unknown_order_is_not_tagged(clients: Clients) -> None:
    order = Order(id=str(uuid4()))
    with fails(grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND"):
        await add(clients, order, "a")
    with fails(grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND"):
        await remove(clients, order, "a")
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="id"):
        await add(clients, Order(id="1"), "a")


async def test_a_changed_order_is_not_tagged_under_its_old_etag(clients: Clients) -> None:
    order = await place(clients)
    tagged = await add(clients, order, "a", etag=order.etag)
    with fails(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await add(clients, order, "b", etag=order.etag)
    with fails(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await remove(clients, order, "a", etag=order.etag)
    assert await get(clients, order) == tagged
    assert not (await remove(clients, order, "a", etag=tagged.etag)).tags


async def test_tags_allow_a_dry_run(clients: Clients) -> None:
    order = await place(clients, "a")
    (name,) = names(1)
    assert list((await add(clients, order, name, validate_only=True)).tags) == sorted(["a", name])
    assert not (await remove(clients, order, "a", validate_only=True)).tags
    assert await get(clients, order) == order
    assert not (await clients.orders.ListTags(pb.ListTagsRequest(prefix=name))).tags


async def test_tags_under_a_request_id_are_added_and_removed_once(clients: Clients) -> None:
    order = await place(clients)
    first, second = str(uuid4()), str(uuid4())
    tagged = await add(clients, order, "a", request_id=first)
    bare = await remove(clients, order, "a", request_id=second)
    assert await add(clients, order, "a", request_id=first) == tagged
    assert await remove(clients, order, "a", request_id=second) == bare
    assert await get(clients, order) == bare
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"):
        await add(clients, order, "b", request_id=first)


async def test_tags_are_set_by_no_other_call(clients: Clients) -> None:
    user = await clients.create_user()
    order = await clients.create_order(user.id, tags=["a"])
    assert not order.tags
    request = pb.UpdateOrderRequest(order=Order(id=order.id, tags=["a"]), update_mask=FieldMask(paths=["tags"]))
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_UPDATE_MASK", field="update_mask"):
        await clients.orders.UpdateOrder(request)


async def test_orders_are_found_by_any_and_by_all_of_their_tags(clients: Clients) -> None:
    order = await place(clients, "red", "big")
    nobody = uuid4().hex
    assert await found(clients, order, tags_any=["RED", nobody])
    assert await found(clients, order, tags_any=["red", "big"])
    assert not await found(clients, order, tags_any=[nobody])
    assert not await found(clients, order, tags_any=["re", "red-"])
    assert await found(clients, order, tags_all=[" Big", "red", "RED"])
    assert not await found(clients, order, tags_all=["big", nobody])
    assert not await found(clients, order, tags_all=["big", "blue"])
    assert await found(clients, order, tags_all=["big"], tags_any=["blue", "red"])
    assert not await found(clients, order, tags_all=["big"], tags_any=["blue"])
    await remove(clients, order, "red")
    assert not await found(clients, order, tags_any=["red"])


async def test_a_list_by_tags_comes_in_pages(clients: Clients) -> None:
    user = await clients.create_user()
    (name,) = names(1)
    orders = [await clients.create_order(user.id) for _ in range(5)]
    for order in (*orders[:2], *orders[3:]):
        await add(clients, order, name)
    request = pb.ListOrdersRequest(tags_any=[name], tags_all=[name], page_size=3, include_total_size=True)
    first = await clients.orders.ListOrders(request)
    assert ([order.id for order in first.orders], first.total_size) == ([orders[n].id for n in (4, 3, 1)], 4)
    request.page_token = first.next_page_token
    second = await clients.orders.ListOrders(request)
    assert ([order.id for order in second.orders], second.next_page_token) == ([orders[0].id], "")
    request.tags_any[:] = ["other"]
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await clients.orders.ListOrders(request)


async def listed_by_pages(clients: Clients, **fields: Any) -> list[str]:
    request = pb.ListOrdersRequest(page_size=3, **fields)
    found = []
    while True:
        response = await clients.orders.ListOrders(request)
        found += [order.id for order in response.orders]
        if not response.next_page_token:
            return found
        request.page_token = response.next_page_token


async def test_a_list_by_tags_is_the_same_with_a_count_and_in_order(clients: Clients) -> None:
    a, b, c, nobody = names(4)
    kinds = [(), (a,), (a, b), (a, b, c), (b, c), (c,)]
    orders = [(await place(clients, *kind), kind) for kind in kinds * 3]
    middle = orders[7][0]
    await clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=middle.id))
    for any_of, all_of in product([(), (a,), (a, c), (nobody,), (nobody, b)], [(), (b,), (a, b), (b, nobody)]):
        if not any_of and not all_of:
            continue
        wanted = [
            order for order, kind in orders if (not any_of or set(any_of) & set(kind)) and set(all_of) <= set(kind)
        ]
        filters = {"tags_any": any_of, "tags_all": all_of}
        ids = [order.id for order in wanted]
        for count in (False, True):
            oldest = {**filters, "include_total_size": count, "order_by": pb.LIST_ORDERS_ORDER_BY_OLDEST}
            assert await listed_by_pages(clients, **oldest) == ids
            newest = {**filters, "include_total_size": count}
            assert await listed_by_pages(clients, **newest) == ids[::-1]
            confirmed = {**newest, "statuses": [OrderStatus.ORDER_STATUS_CONFIRMED]}
            assert await listed_by_pages(clients, **confirmed) == [one for one in ids if one == middle.id]
            later = {**oldest, "create_time": Interval(start_time=middle.create_time)}
            assert await listed_by_pages(clients, **later) == [
                order.id for order in wanted if order.create_time.ToNanoseconds() >= middle.create_time.ToNanoseconds()
            ]


async def test_orders_that_had_tags_before_are_listed_by_them(empty_database_url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=empty_database_url), pool_size=1)
    try:
        await migrate.upgrade(engine, "0008")
        async with driver_connection(empty_database_url) as connection:
            await connection.execute("""
                SET session_replication_role = replica;
                INSERT INTO orders (
                    id, order_number, user_id, status, currency, total_amount, metadata, version, create_time,
                    update_time
                )
                SELECT gen_random_uuid(), 'N' || n, gen_random_uuid(), 'PENDING', 'EUR', 0, '{}', 1, t, t
                FROM generate_series(1, 1200) n, LATERAL (SELECT now() - n * interval '1 minute' AS t) time;
                INSERT INTO tags VALUES (gen_random_uuid(), 'gift'), (gen_random_uuid(), 'large');
                INSERT INTO order_tags SELECT orders.id, tags.id FROM orders, tags;
            """)
        await migrate.upgrade(engine)
    finally:
        await engine.dispose()
    async with serving_clients(empty_database_url) as clients:
        for tags in (["gift"], ["gift", "large"]):
            request = pb.ListOrdersRequest(tags_all=tags, page_size=1000)
            first = await clients.orders.ListOrders(request)
            request.page_token = first.next_page_token
            second = await clients.orders.ListOrders(request)
            numbers = [order.order_number for response in (first, second) for order in response.orders]
            assert numbers == [f"N{number}" for number in range(1, 1201)]


async def test_tags_are_listed_by_name_with_their_orders_counted(clients: Clients) -> None:
    prefix = uuid4().hex
    one, two = await place(clients, f"{prefix}%_", f"{prefix}b", f"{prefix}é"), await place(clients, f"{prefix}b")
    await add(clients, two, f"{prefix}a")
    await remove(clients, two, f"{prefix}a")
    await add(clients, one, prefix)
    request = pb.ListTagsRequest(prefix=prefix.upper(), page_size=2, include_total_size=True)
    listed: list[tuple[str, int]] = []
    while True:
        response = await clients.orders.ListTags(request)
        assert response.total_size == 5
        listed += [(tag.name.removeprefix(prefix), tag.order_count) for tag in response.tags]
        request.page_token = response.next_page_token
        if not request.page_token:
            break
    assert listed == [("", 1), ("%_", 1), ("a", 0), ("b", 2), ("é", 1)]
    for part, expected in (("%", ["%_"]), ("_", []), ("B", ["b"]), ("e\u0301", ["é"]), ("bb", [])):
        response = await clients.orders.ListTags(pb.ListTagsRequest(prefix=f"{prefix}{part}"))
        assert [tag.name.removeprefix(prefix) for tag in response.tags] == expected


async def test_all_tags_are_listed_without_a_prefix(clients: Clients) -> None:
    order = await place(clients, "some")
    response = await clients.orders.ListTags(pb.ListTagsRequest(page_size=1000))
    listed = [tag.name for tag in response.tags]
    assert listed == sorted(listed)
    assert "some" in listed
    assert list(order.tags) == ["some"]


@pytest.mark.parametrize("prefix", [" ", "x" * 51, "\0"])
async def test_a_prefix_that_no_tag_can_have_is_refused(clients: Clients, prefix: str) -> None:
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="prefix"):
        await clients.orders.ListTags(pb.ListTagsRequest(prefix=prefix))


async def test_callers_that_create_the_same_tags_concurrently_all_succeed_at_the_first_attempt(
    clients: Clients,
) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id) for _ in range(8)]
    with capture_logs() as lines:
        for _ in range(3):
            tags = names(10)
            calls = [add(clients, order, *(tags if index % 2 else tags[::-1])) for index, order in enumerate(orders)]
            assert all(set(tags) <= set(order.tags) for order in await asyncio.gather(*calls))
            response = await clients.orders.ListTags(pb.ListTagsRequest(prefix=tags[0]))
            assert [tag.order_count for tag in response.tags] == [8]
    # Counted, because a retry would hide a deadlock.
    assert "call" in {line["event"] for line in lines}
    assert "retrying" not in {line["event"] for line in lines}


async def test_new_tags_are_inserted_in_order_so_that_calls_do_not_deadlock(
    clients: Clients, shared_database_url: str
) -> None:
    order = await place(clients)
    tags = names(10)
    insert = "INSERT INTO tags (id, name) VALUES (uuidv7(), $1)"
    async with driver_connection(shared_database_url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL lock_timeout = '500ms'")
        await connection.execute(insert, tags[0])
        waiting = asyncio.create_task(add(clients, order, *reversed(tags)))
        await until_blocked(connection)
        # A call that waits for the first tag has created no other.
        await connection.executemany(insert, [(name,) for name in tags[1:]])
        await transaction.rollback()
        assert list((await waiting).tags) == tags


async def test_callers_that_tag_one_order_concurrently_lose_nothing(clients: Clients) -> None:
    order = await place(clients, "first")
    tags = names(8)
    await asyncio.gather(*(add(clients, order, tag) for tag in tags), remove(clients, order, "first"))
    now = await get(clients, order)
    assert list(now.tags) == tags
    timeline = await changes(clients, order)
    assert len(timeline) == 10
    assert [new for _, new in timeline[:-1]] == [old for old, _ in timeline[1:]]


async def test_an_order_and_its_tags_are_read_with_one_statement(clients: Clients) -> None:
    order = await place(clients, "a", "b")
    listing = pb.ListOrdersRequest(tags_any=["a"], tags_all=["a", "b"], include_total_size=True)
    with sent_statements() as sent:
        await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))
        await clients.orders.ListOrders(listing)
        await clients.orders.ListTags(pb.ListTagsRequest(prefix="a", include_total_size=True))
    assert len(sent) == 3, sent
