import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import pytest
from commerce.orders.v1.order_pb2 import FieldChange, Order, OrderEvent, OrderEventType, OrderItem, OrderStatus
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import PreconditionFailure, ResourceInfo
from google.type.money_pb2 import Money
from grpc import StatusCode

from tests.support.clients import Clients, item, new_order
from tests.support.failures import Failure, fails
from tests.support.methods import call
from tests.support.requests import GOOD_REQUESTS, order_in, transition_request, user_in


async def get(clients: Clients, order_id: str) -> Order:
    return (await clients.orders.GetOrder(pb.GetOrderRequest(id=order_id))).order


async def update(clients: Clients, order: Order, *paths: str) -> Order:
    mask = FieldMask(paths=paths) if paths else None
    return (await clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=order, update_mask=mask))).order


async def step(clients: Clients, transition: str, order_id: str) -> Order:
    order: Order = (await call(clients.channel, f"{transition}Order", transition_request(transition, order_id))).order
    return order


async def timeline(clients: Clients, order_id: str) -> list[OrderEvent]:
    request = pb.ListOrderEventsRequest(order_id=order_id)
    return list((await clients.orders.ListOrderEvents(request)).events)


def resource(failure: Failure) -> tuple[str, str]:
    info = failure.details[ResourceInfo]
    assert isinstance(info, ResourceInfo)
    return info.resource_type, info.resource_name


def precondition(failure: Failure) -> tuple[str, str]:
    details = failure.details[PreconditionFailure]
    assert isinstance(details, PreconditionFailure)
    [violation] = details.violations
    return violation.type, violation.subject


def amounts(order: Order) -> list[tuple[int, int]]:
    return [(money.units, money.nanos) for money in (*(item.subtotal for item in order.items), order.total_amount)]


# CreateOrder


async def test_a_new_order_is_pending_and_has_the_requested_fields(clients: Clients) -> None:
    user = await clients.create_user()
    wanted = new_order(user.id, external_ref="cart-1", metadata={"channel": "web", "note": "für Zoë 🚀", "empty": ""})
    order = (await clients.orders.CreateOrder(pb.CreateOrderRequest(order=wanted))).order
    assert UUID(order.id).version == 7
    assert re.fullmatch(r"ORD-\d{8,}", order.order_number)
    assert (order.user_id, order.external_ref, order.metadata) == (user.id, "cart-1", wanted.metadata)
    assert order.status == OrderStatus.ORDER_STATUS_PENDING
    assert [_asked(item) for item in order.items] == [_asked(item) for item in wanted.items]
    assert len({UUID(item.id) for item in order.items}) == 3
    assert (order.tracking_number, order.cancel_reason) == ("", "")
    assert order.create_time == order.update_time
    assert abs(order.create_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)


def _asked(item: OrderItem) -> tuple[str, str, int, Money]:
    return item.product_id, item.name, item.quantity, item.unit_price


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param(
            [item("a", 2, 10, 500_000_000), item("b", 1, 99), item("c", 3, 0, 10_000_000)],
            [(21, 0), (99, 0), (0, 30_000_000), (120, 30_000_000)],
            id="eur",
        ),
        pytest.param([item("a", 3, 0, 100_000_000)] * 3, [(0, 300_000_000)] * 3 + [(0, 900_000_000)], id="tenths"),
        pytest.param([item("a", 7, 1234, 0, "JPY")], [(8638, 0), (8638, 0)], id="no_decimals"),
        pytest.param([item("a", 3, 1, 1_000_000, "KWD")], [(3, 3_000_000)] * 2, id="three_decimals"),
        pytest.param([item("a", 3, 0, 100_000, "UYW")], [(0, 300_000)] * 2, id="four_decimals"),
        pytest.param([item("gift", 10_000, 0)], [(0, 0)] * 2, id="free"),
        pytest.param(
            [item("a", 1, 999_999_999_999_998, 990_000_000), item("b", 1, 1)],
            [(999_999_999_999_998, 990_000_000), (1, 0), (999_999_999_999_999, 990_000_000)],
            id="the_largest",
        ),
    ],
)
async def test_totals_are_exact(clients: Clients, items: list[OrderItem], expected: list[tuple[int, int]]) -> None:
    user = await clients.create_user()
    order = await clients.create_order(user.id, items=items)
    assert amounts(order) == expected
    currency = items[0].unit_price.currency_code
    assert order.total_amount.currency_code == order.items[0].subtotal.currency_code == currency
    # Read as rows from the database, not as an encoded message.
    assert await get(clients, order.id) == order


async def test_every_order_has_a_number_of_its_own(clients: Clients) -> None:
    user = await clients.create_user()
    numbers = [(await clients.create_order(user.id)).order_number for _ in range(40)]
    assert len(set(numbers)) == 40
    assert numbers == sorted(numbers)


async def test_a_missing_user_cannot_order(clients: Clients) -> None:
    user_id = str(uuid4())
    with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND") as failure:
        await clients.create_order(user_id)
    assert resource(failure) == ("commerce.users.v1.User", user_id)


@pytest.mark.parametrize("state", ["INACTIVE", "DELETED"])
async def test_only_an_active_user_can_order(clients: Clients, state: str) -> None:
    user = await user_in(clients, state)
    with fails(StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE") as failure:
        await clients.create_order(user.id)
    assert failure.metadata == {"state": state}
    assert precondition(failure) == ("USER_NOT_ACTIVE", f"users/{user.id}")


async def test_a_reference_is_unique_among_the_orders_of_a_user(clients: Clients) -> None:
    user, other = await clients.create_user(), await clients.create_user()
    await clients.create_order(user.id, external_ref="cart-1")
    await clients.create_order(other.id, external_ref="cart-1")
    await clients.create_order(user.id, external_ref="CART-1")
    with fails(StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS") as failure:
        await clients.create_order(user.id, external_ref="cart-1")
    assert failure.metadata == {"field": "external_ref"}
    assert resource(failure)[0] == "commerce.orders.v1.Order"


async def test_the_reference_of_a_cancelled_order_can_be_used_again(clients: Clients) -> None:
    user = await clients.create_user()
    orders = []
    for _ in range(3):
        orders.append(await clients.create_order(user.id, external_ref="cart-1"))
        with fails(StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS"):
            await clients.create_order(user.id, external_ref="cart-1")
        await step(clients, "Cancel", orders[-1].id)
    other = await clients.create_order(user.id, external_ref="cart-2")
    assert (await update(clients, Order(id=other.id, external_ref="cart-1"))).external_ref == "cart-1"
    # A cancelled order keeps its reference.
    request = pb.GetOrderRequest(id=orders[0].id)
    assert (await clients.orders.GetOrder(request)).order.external_ref == "cart-1"


async def test_any_number_of_orders_have_no_reference(clients: Clients) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id, external_ref="") for _ in range(3)]
    assert [order.external_ref for order in orders] == [""] * 3


# GetOrder, BatchGetOrders


async def test_an_order_is_found_by_its_id_and_by_its_number(clients: Clients) -> None:
    order = await order_in(clients, "SHIPPED", external_ref="cart-1", metadata={"channel": "web"})
    by_number = await clients.orders.GetOrder(pb.GetOrderRequest(order_number=order.order_number))
    assert await get(clients, order.id) == await get(clients, order.id.upper()) == by_number.order == order


@pytest.mark.parametrize(
    ("units", "nanos"),
    [(0, 0), (0, 100_000), (1, 999_900_000), (922_337_203_685_477, 580_800_000), (999_999_999_999_999, 999_900_000)],
)
async def test_every_amount_and_time_is_read_as_it_was_written(clients: Clients, units: int, nanos: int) -> None:
    user = await clients.create_user()
    wanted = Order(user_id=user.id, items=[item("a", 1, units, nanos, "UYW")])
    order = (await clients.orders.CreateOrder(pb.CreateOrderRequest(order=wanted))).order
    assert (order.items[0].unit_price.units, order.items[0].unit_price.nanos) == (units, nanos)
    listed = (await clients.orders.ListOrders(pb.ListOrdersRequest(user_id=user.id))).orders
    assert [await get(clients, order.id), *listed] == [order, order]


@pytest.mark.parametrize("key", ["id", "order_number"])
async def test_a_missing_order_is_not_found(clients: Clients, key: str) -> None:
    name = {"id": str(uuid4()), "order_number": "ORD-99999999"}[key]
    with fails(StatusCode.NOT_FOUND, "ORDER_NOT_FOUND") as failure:
        await clients.orders.GetOrder(pb.GetOrderRequest(**{key: name}))
    assert resource(failure) == ("commerce.orders.v1.Order", name)


async def test_a_batch_keeps_its_order_and_its_repetitions(clients: Clients) -> None:
    user = await clients.create_user()
    first, second, third = [await clients.create_order(user.id) for _ in range(3)]
    request = pb.BatchGetOrdersRequest(ids=[third.id, first.id, second.id, first.id])
    assert list((await clients.orders.BatchGetOrders(request)).orders) == [third, first, second, first]


async def test_a_batch_names_every_missing_order(clients: Clients) -> None:
    order = await order_in(clients, "PENDING")
    missing = [str(uuid4()) for _ in range(2)]
    with fails(StatusCode.NOT_FOUND, "ORDER_NOT_FOUND") as failure:
        await clients.orders.BatchGetOrders(pb.BatchGetOrdersRequest(ids=[missing[0], order.id, missing[1]]))
    assert failure.metadata == {
        "missing_count": "2",
        "missing_indexes": "0,2",
        "missing_ids": ",".join(missing),
    }


# The statuses

NEXT = {
    "PENDING": ("CONFIRMED", "CANCELLED"),
    "CONFIRMED": ("PROCESSING", "CANCELLED"),
    "PROCESSING": ("SHIPPED", "CANCELLED"),
    "SHIPPED": ("DELIVERED",),
    "DELIVERED": (),
    "CANCELLED": (),
}
TARGET_STATUS = {
    "Confirm": "CONFIRMED",
    "Process": "PROCESSING",
    "Ship": "SHIPPED",
    "Deliver": "DELIVERED",
    "Cancel": "CANCELLED",
}


@pytest.mark.parametrize("transition", TARGET_STATUS)
@pytest.mark.parametrize("status", NEXT)
async def test_an_order_goes_only_where_its_status_allows(clients: Clients, status: str, transition: str) -> None:
    order = await order_in(clients, status)
    if TARGET_STATUS[transition] in NEXT[status]:
        changed = await step(clients, transition, order.id)
        assert OrderStatus.Name(changed.status) == f"ORDER_STATUS_{TARGET_STATUS[transition]}"
        assert changed.etag != order.etag
        assert await get(clients, order.id) == changed
        return
    with fails(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as failure:
        await step(clients, transition, order.id)
    assert failure.metadata == {"state": status, "allowed": ", ".join(NEXT[status])}
    assert failure.message == (
        f"cannot {transition.lower()} an order in state {status}; "
        f"allowed next states: {', '.join(NEXT[status]) or 'none'}"
    )
    assert precondition(failure) == ("ILLEGAL_TRANSITION", f"orders/{order.id}")
    assert await get(clients, order.id) == order


async def test_a_transition_stores_its_text(clients: Clients) -> None:
    shipped = await order_in(clients, "PROCESSING")
    cancelled = await order_in(clients, "PROCESSING")
    await clients.orders.ShipOrder(pb.ShipOrderRequest(id=shipped.id, tracking_number="1Z 999"))
    await clients.orders.CancelOrder(pb.CancelOrderRequest(id=cancelled.id, reason="gefällt nicht"))
    assert (await get(clients, shipped.id)).tracking_number == "1Z 999"
    assert (await get(clients, cancelled.id)).cancel_reason == "gefällt nicht"


@pytest.mark.parametrize("transition", TARGET_STATUS)
async def test_a_transition_of_a_missing_order_is_not_found(clients: Clients, transition: str) -> None:
    order_id = str(uuid4())
    with fails(StatusCode.NOT_FOUND, "ORDER_NOT_FOUND") as failure:
        await step(clients, transition, order_id)
    assert resource(failure) == ("commerce.orders.v1.Order", order_id)


# UpdateOrder


async def test_an_update_replaces_the_items_and_recomputes_the_total(clients: Clients) -> None:
    order = await order_in(clients, "PENDING", external_ref="cart-1", metadata={"channel": "web"})
    items = [item("book", 4, 7, 250_000_000, "USD"), item("pen", 1, 1, 0, "USD")]
    updated = await update(clients, Order(id=order.id, items=items), "items")
    assert [_asked(item) for item in updated.items] == [_asked(item) for item in items]
    assert amounts(updated) == [(29, 0), (1, 0), (30, 0)]
    assert updated.total_amount.currency_code == "USD"
    assert not {item.id for item in updated.items} & {item.id for item in order.items}
    assert (updated.external_ref, updated.metadata, updated.order_number) == (
        "cart-1",
        order.metadata,
        order.order_number,
    )
    assert updated.etag != order.etag
    assert updated.update_time.ToNanoseconds() > order.update_time.ToNanoseconds()
    assert await get(clients, order.id) == updated


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        pytest.param(("external_ref",), ("metadata", "items", "total_amount"), id="external_ref"),
        pytest.param(("metadata",), ("external_ref", "items", "total_amount"), id="metadata"),
        # Without a mask, fields that are not set do not change.
        pytest.param((), ("external_ref", "metadata", "items", "total_amount"), id="no_mask"),
    ],
)
async def test_an_update_leaves_the_fields_outside_its_mask(
    clients: Clients, paths: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    order = await order_in(clients, "PENDING", external_ref="cart-1", metadata={"channel": "web"})
    updated = await update(clients, Order(id=order.id), *paths)
    assert [getattr(updated, name) for name in kept] == [getattr(order, name) for name in kept]
    for path in paths:
        assert not getattr(updated, path)
    assert (updated == order) == (not paths)


async def test_metadata_is_replaced_as_a_whole(clients: Clients) -> None:
    order = await order_in(clients, "PENDING", metadata={"channel": "web", "basket": "7"})
    updated = await update(clients, Order(id=order.id, metadata={"channel": "phone"}))
    assert dict(updated.metadata) == {"channel": "phone"}
    assert dict((await get(clients, order.id)).metadata) == {"channel": "phone"}


async def test_a_star_replaces_every_field(clients: Clients) -> None:
    order = await order_in(clients, "PENDING", external_ref="cart-1", metadata={"channel": "web"})
    updated = await update(clients, Order(id=order.id, items=[item("book", 1, 1)]), "*")
    assert (updated.external_ref, dict(updated.metadata), amounts(updated)) == ("", {}, [(1, 0), (1, 0)])


async def test_a_star_without_items_is_refused(clients: Clients) -> None:
    order = await order_in(clients, "PENDING")
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="order.items"):
        await update(clients, Order(id=order.id), "*")


async def test_the_user_of_an_order_never_changes(clients: Clients) -> None:
    order, other = await order_in(clients, "PENDING"), await clients.create_user()
    updated = await update(clients, Order(id=order.id, user_id=other.id, external_ref="cart-2"))
    assert (updated.user_id, updated.external_ref) == (order.user_id, "cart-2")


async def test_an_update_to_a_taken_reference_is_refused(clients: Clients) -> None:
    order = await order_in(clients, "PENDING", external_ref="cart-1")
    other = await clients.create_order(order.user_id, external_ref="cart-2")
    with fails(StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS") as failure:
        await update(clients, Order(id=other.id, external_ref="cart-1"))
    assert failure.metadata == {"field": "external_ref"}
    assert await get(clients, other.id) == other
    # The other order has given it up.
    await update(clients, Order(id=order.id), "external_ref")
    assert (await update(clients, Order(id=other.id, external_ref="cart-1"))).external_ref == "cart-1"


@pytest.mark.parametrize("status", [status for status in NEXT if status != "PENDING"])
async def test_only_a_pending_order_can_be_updated(clients: Clients, status: str) -> None:
    order = await order_in(clients, status)
    with fails(StatusCode.FAILED_PRECONDITION, "ORDER_NOT_PENDING") as failure:
        await update(clients, Order(id=order.id, external_ref="cart-2"))
    assert failure.metadata == {"status": status}
    assert precondition(failure) == ("ORDER_NOT_PENDING", f"orders/{order.id}")
    assert await get(clients, order.id) == order


async def test_an_update_of_a_missing_order_is_not_found(clients: Clients) -> None:
    order_id = str(uuid4())
    with fails(StatusCode.NOT_FOUND, "ORDER_NOT_FOUND") as failure:
        await update(clients, Order(id=order_id, external_ref="cart-2"))
    assert resource(failure) == ("commerce.orders.v1.Order", order_id)


# ListOrderEvents


def _status_change(old: str, new: str) -> FieldChange:
    return FieldChange(field="status", old_value=old, new_value=new)


async def test_the_timeline_has_the_whole_life_of_an_order(clients: Clients) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id, external_ref="cart-1")]
    changes: list[tuple[str, list[Any]]] = [("CREATED", [])]

    changed = Order(id=orders[0].id, items=[item("book", 1, 5)], external_ref="cart-2", metadata={"channel": "web"})
    orders.append(await update(clients, changed))
    changes.append(
        (
            "UPDATED",
            [
                FieldChange(field="items"),
                FieldChange(field="total_amount", old_value="120.03 EUR", new_value="5.00 EUR"),
                FieldChange(field="external_ref", old_value="cart-1", new_value="cart-2"),
                FieldChange(field="metadata"),
            ],
        )
    )
    orders.append(await update(clients, Order(id=orders[0].id), "external_ref"))
    changes.append(("UPDATED", [FieldChange(field="external_ref", old_value="cart-2")]))
    for transition in ("Confirm", "Process", "Ship", "Deliver"):
        orders.append(await step(clients, transition, orders[0].id))
    tracking = FieldChange(field="tracking_number", new_value="TRACK-1")
    changes += [
        ("CONFIRMED", [_status_change("PENDING", "CONFIRMED")]),
        ("PROCESSING", [_status_change("CONFIRMED", "PROCESSING")]),
        ("SHIPPED", [_status_change("PROCESSING", "SHIPPED"), tracking]),
        ("DELIVERED", [_status_change("SHIPPED", "DELIVERED")]),
    ]

    events = await timeline(clients, orders[0].id)
    assert [(OrderEventType.Name(event.type), list(event.changes)) for event in events] == [
        (f"ORDER_EVENT_TYPE_{name}", of_event) for name, of_event in changes
    ]
    assert [event.create_time for event in events] == [order.update_time for order in orders]
    assert {event.order_id for event in events} == {orders[0].id}
    assert {event.actor for event in events} == {"anonymous"}
    assert len({UUID(event.id) for event in events}) == len(events)


async def test_the_timeline_has_the_reason_of_a_cancellation(clients: Clients) -> None:
    order = await order_in(clients, "CANCELLED")
    event = (await timeline(clients, order.id))[-1]
    assert event.type == OrderEventType.ORDER_EVENT_TYPE_CANCELLED
    assert list(event.changes) == [
        _status_change("PENDING", "CANCELLED"),
        FieldChange(field="cancel_reason", new_value="changed my mind"),
    ]


async def test_failed_calls_and_calls_without_a_change_are_not_in_the_timeline(clients: Clients) -> None:
    order = await order_in(clients, "PENDING", external_ref="cart-1")
    await update(clients, Order(id=order.id, external_ref="cart-1"))
    with fails(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"):
        await step(clients, "Deliver", order.id)
    request = await GOOD_REQUESTS["ConfirmOrder"](clients)
    request.id, request.validate_only = order.id, True
    await clients.orders.ConfirmOrder(request)
    assert [event.type for event in await timeline(clients, order.id)] == [OrderEventType.ORDER_EVENT_TYPE_CREATED]
    assert await get(clients, order.id) == order


async def test_the_timeline_is_listed_page_by_page(clients: Clients) -> None:
    order = await order_in(clients, "DELIVERED")
    request = pb.ListOrderEventsRequest(order_id=order.id, page_size=2, include_total_size=True)
    events: list[OrderEvent] = []
    for size, is_last in ((2, False), (2, False), (1, True)):
        page = await clients.orders.ListOrderEvents(request)
        assert (len(page.events), page.total_size, not page.next_page_token) == (size, 5, is_last)
        events += page.events
        request.page_token = page.next_page_token
    assert events == await timeline(clients, order.id)


async def test_the_timeline_of_a_missing_order_is_not_found(clients: Clients) -> None:
    order_id = str(uuid4())
    with fails(StatusCode.NOT_FOUND, "ORDER_NOT_FOUND") as failure:
        await timeline(clients, order_id)
    assert resource(failure) == ("commerce.orders.v1.Order", order_id)


async def test_a_user_has_no_timeline_of_orders(clients: Clients) -> None:
    user = await clients.create_user()
    with fails(StatusCode.NOT_FOUND, "ORDER_NOT_FOUND"):
        await timeline(clients, user.id)
