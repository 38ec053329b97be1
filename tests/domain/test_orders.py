from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from uuid import UUID

import pytest

from service.domain.errors import AmountOutOfRange, IllegalTransition, InvalidField, MixedCurrencies, OrderNotPending
from service.domain.events import Event, FieldChange
from service.domain.money import Money
from service.domain.orders import (
    MAX_ITEMS,
    MAX_QUANTITY,
    OPEN_STATUSES,
    TRANSITIONS,
    ItemFields,
    Order,
    OrderFields,
    OrderStatus,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
USER = UUID("01890000-0000-7000-8000-000000000001")

Transition = Callable[[Order, datetime], None]
TRANSITION_METHODS: Mapping[OrderStatus, Transition] = MappingProxyType(
    {
        OrderStatus.CONFIRMED: Order.confirm,
        OrderStatus.PROCESSING: Order.process,
        OrderStatus.SHIPPED: lambda order, now: order.ship("TRACK-1", now),
        OrderStatus.DELIVERED: Order.deliver,
        OrderStatus.CANCELLED: lambda order, now: order.cancel("changed my mind", now),
    }
)
# The transitions that lead to each status.
WAYS: Mapping[OrderStatus, tuple[OrderStatus, ...]] = MappingProxyType(
    {
        OrderStatus.PENDING: (),
        OrderStatus.CONFIRMED: (OrderStatus.CONFIRMED,),
        OrderStatus.PROCESSING: (OrderStatus.CONFIRMED, OrderStatus.PROCESSING),
        OrderStatus.SHIPPED: (OrderStatus.CONFIRMED, OrderStatus.PROCESSING, OrderStatus.SHIPPED),
        OrderStatus.DELIVERED: (
            OrderStatus.CONFIRMED,
            OrderStatus.PROCESSING,
            OrderStatus.SHIPPED,
            OrderStatus.DELIVERED,
        ),
        OrderStatus.CANCELLED: (OrderStatus.CANCELLED,),
    }
)


def item(product_id: str = "anvil", quantity: int = 2, price: str = "10.50", currency: str = "EUR") -> ItemFields:
    return ItemFields(product_id, product_id.title(), quantity, Money(currency, Decimal(price)))


def placed(**fields: object) -> Order:
    """Return a new order of 2 x 10.50 + 1 x 99 = 120 EUR, without its CREATED event."""
    wanted: OrderFields = {"items": [item(), item("rocket", 1, "99")], **fields}  # type: ignore[typeddict-item] # only known names are passed
    order = Order.place(USER, "ORD-1", wanted, NOW)
    order.take_events()
    return order


def order_in(status: OrderStatus) -> Order:
    order = placed()
    for step in WAYS[status]:
        TRANSITION_METHODS[step](order, NOW)
    order.take_events()
    assert order.status is status
    return order


def only_event(order: Order) -> Event:
    (event,) = order.take_events()
    return event


def test_a_placed_order_is_pending_at_version_one() -> None:
    order = Order.place(USER, "ORD-1", {"items": [item()], "external_ref": "r-1", "metadata": {"k": "v"}}, NOW)
    assert (order.status, order.version, order.etag) == (OrderStatus.PENDING, 1, "v1")
    assert (order.user_id, order.order_number) == (USER, "ORD-1")
    assert (order.external_ref, order.metadata) == ("r-1", {"k": "v"})
    assert (order.create_time, order.update_time) == (NOW, NOW)
    assert (order.tracking_number, order.cancel_reason) == (None, None)
    assert order.id.version == 7


def test_a_placed_order_records_its_creation() -> None:
    order = Order.place(USER, "ORD-1", {"items": [item()]}, NOW)
    event = only_event(order)
    assert (event.aggregate_type, event.aggregate_id, event.type) == ("order", order.id, "CREATED")
    assert (event.create_time, event.changes) == (NOW, ())
    assert order.take_events() == []


def test_subtotals_and_the_total_are_computed_from_quantity_and_price() -> None:
    order = placed(items=[item("anvil", 2, "10.50"), item("rocket", 1, "99"), item("bolt", 3, "0.01")])
    assert [entry.subtotal for entry in order.items] == [Decimal("21.00"), Decimal(99), Decimal("0.03")]
    assert order.total == Money("EUR", Decimal("120.03"))


def test_items_keep_the_order_in_which_the_caller_named_them() -> None:
    names = [f"product-{number}" for number in range(MAX_ITEMS)]
    order = placed(items=[item(name) for name in names])
    assert [entry.product_id for entry in sorted(order.items, key=lambda entry: entry.id)] == names


def test_an_order_may_cost_nothing() -> None:
    assert placed(items=[item(price="0")]).total == Money("EUR", Decimal(0))


@pytest.mark.parametrize("count", [0, MAX_ITEMS + 1])
def test_an_order_without_items_or_with_too_many_is_refused(count: int) -> None:
    with pytest.raises(InvalidField) as refused:
        placed(items=[item()] * count)
    assert refused.value.violations[0].field == "order.items"


@pytest.mark.parametrize("quantity", [-1, 0, MAX_QUANTITY + 1])
def test_a_quantity_out_of_range_is_refused_at_its_item(quantity: int) -> None:
    with pytest.raises(InvalidField) as refused:
        placed(items=[item(), item(quantity=quantity)])
    assert refused.value.violations[0].field == "order.items[1].quantity"


def test_items_in_two_currencies_are_refused() -> None:
    with pytest.raises(MixedCurrencies):
        placed(items=[item(), item(currency="USD")])


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([item(), item(price="999999999999999.99", quantity=2)], "order.items[1]"),
        ([item(price="999999999999999.99", quantity=1), item(price="0.01", quantity=1)], "order.items"),
    ],
    ids=["one item", "all items together"],
)
def test_an_order_that_costs_too_much_is_refused(items: list[ItemFields], field: str) -> None:
    with pytest.raises(AmountOutOfRange) as refused:
        placed(items=items)
    assert refused.value.violations[0].field == field


def test_an_order_goes_nowhere_but_these_ways() -> None:
    assert {(old.value, new.value) for old, ends in TRANSITIONS.items() for new in ends} == {
        ("PENDING", "CONFIRMED"),
        ("CONFIRMED", "PROCESSING"),
        ("PROCESSING", "SHIPPED"),
        ("SHIPPED", "DELIVERED"),
        ("PENDING", "CANCELLED"),
        ("CONFIRMED", "CANCELLED"),
        ("PROCESSING", "CANCELLED"),
    }
    assert set(TRANSITIONS) == set(OrderStatus)


def test_open_orders_are_those_that_can_be_cancelled() -> None:
    assert set(OPEN_STATUSES) == {status for status in OrderStatus if OrderStatus.CANCELLED in TRANSITIONS[status]}


@pytest.mark.parametrize("wanted", TRANSITION_METHODS)
@pytest.mark.parametrize("status", OrderStatus)
def test_a_transition_does_what_the_table_says(status: OrderStatus, wanted: OrderStatus) -> None:
    order = order_in(status)
    before = order.version
    if wanted in TRANSITIONS[status]:
        TRANSITION_METHODS[wanted](order, LATER)
        assert (order.status, order.version, order.update_time) == (wanted, before + 1, LATER)
        event = only_event(order)
        assert (event.type, event.create_time) == (wanted.value, LATER)
        assert event.changes[0] == FieldChange("status", status.value, wanted.value)
    else:
        with pytest.raises(IllegalTransition) as refused:
            TRANSITION_METHODS[wanted](order, LATER)
        assert refused.value.subject == f"orders/{order.id}"
        assert refused.value.metadata == {"state": status.value, "allowed": ", ".join(TRANSITIONS[status])}
        assert f" in state {status.value};" in refused.value.message
        assert (order.status, order.version, order.update_time, order.take_events()) == (status, before, NOW, [])


def test_the_end_of_the_way_says_that_nothing_is_next() -> None:
    with pytest.raises(IllegalTransition, match="allowed next states: none"):
        order_in(OrderStatus.DELIVERED).cancel("too late", NOW)


def test_shipping_stores_and_records_the_tracking_number() -> None:
    order = order_in(OrderStatus.PROCESSING)
    order.ship("TRACK-1", LATER)
    assert order.tracking_number == "TRACK-1"
    assert only_event(order).changes[1:] == (FieldChange("tracking_number", "", "TRACK-1"),)


def test_cancelling_stores_and_records_the_reason() -> None:
    order = placed()
    order.cancel("changed my mind", LATER)
    assert order.cancel_reason == "changed my mind"
    assert only_event(order).changes[1:] == (FieldChange("cancel_reason", "", "changed my mind"),)


def test_a_refused_transition_leaves_no_tracking_number_or_reason() -> None:
    order = order_in(OrderStatus.SHIPPED)
    with pytest.raises(IllegalTransition):
        order.ship("TRACK-2", LATER)
    with pytest.raises(IllegalTransition):
        order.cancel("too late", LATER)
    assert (order.tracking_number, order.cancel_reason) == ("TRACK-1", None)


def test_new_items_replace_the_old_ones_and_the_total() -> None:
    order = placed()
    kept, old_ids = order.items, {entry.id for entry in order.items}
    order.update({"items": [item("bolt", 3, "100", "JPY")]}, LATER)
    assert order.items is kept
    assert [(entry.product_id, entry.subtotal) for entry in order.items] == [("bolt", Decimal(300))]
    assert order.total == Money("JPY", Decimal(300))
    assert old_ids.isdisjoint(entry.id for entry in order.items)
    assert only_event(order).changes == (
        FieldChange("items"),
        FieldChange("total_amount", "120.00 EUR", "300 JPY"),
    )


def test_items_of_the_same_total_record_no_change_of_it() -> None:
    order = placed()
    order.update({"items": [item("anvil", 120, "1.0")]}, LATER)
    assert only_event(order).changes == (FieldChange("items"),)


@pytest.mark.parametrize(("old", "new"), [(None, "r-1"), ("r-1", "r-2"), ("r-1", None)])
def test_a_new_external_reference_is_stored_and_recorded(old: str | None, new: str | None) -> None:
    order = placed(external_ref=old)
    order.update({"external_ref": new}, LATER)
    assert order.external_ref == new
    assert only_event(order).changes == (FieldChange("external_ref", old or "", new or ""),)


def test_new_metadata_is_stored_and_recorded_without_its_values() -> None:
    order = placed(metadata={"a": "1"})
    order.update({"metadata": {"b": "2"}}, LATER)
    assert order.metadata == {"b": "2"}
    assert only_event(order).changes == (FieldChange("metadata"),)


def test_an_order_copies_its_metadata() -> None:
    given = {"a": "1"}
    order = placed(metadata=given)
    given["a"] = "2"
    assert order.metadata == {"a": "1"}


def test_several_fields_are_one_change() -> None:
    order = placed()
    order.update({"external_ref": "r-1", "metadata": {"b": "2"}}, LATER)
    assert (order.version, order.update_time) == (2, LATER)
    event = only_event(order)
    assert (event.type, event.create_time) == ("UPDATED", LATER)
    assert [change.field for change in event.changes] == ["external_ref", "metadata"]


@pytest.mark.parametrize("same", [{}, {"external_ref": "r-1"}, {"metadata": {"k": "v"}}], ids=str)
def test_an_update_to_the_same_values_changes_nothing(same: OrderFields) -> None:
    order = placed(external_ref="r-1", metadata={"k": "v"})
    order.update(same, LATER)
    assert (order.version, order.update_time, order.take_events()) == (1, NOW, [])


@pytest.mark.parametrize("status", [status for status in OrderStatus if status is not OrderStatus.PENDING])
def test_only_a_pending_order_can_be_updated(status: OrderStatus) -> None:
    order = order_in(status)
    before = order.version
    with pytest.raises(OrderNotPending) as refused:
        order.update({"external_ref": "r-1"}, LATER)
    assert (refused.value.subject, refused.value.metadata) == (f"orders/{order.id}", {"status": status.value})
    assert (order.external_ref, order.version, order.update_time, order.take_events()) == (None, before, NOW, [])


def test_a_refused_update_sets_no_field_at_all() -> None:
    order = placed()
    with pytest.raises(InvalidField):
        order.update({"items": [], "external_ref": "r-1", "metadata": {"b": "2"}}, LATER)
    assert (order.external_ref, order.metadata, len(order.items)) == (None, {}, 2)
    assert (order.version, order.update_time, order.take_events()) == (1, NOW, [])


def test_time_does_not_run_backwards_when_a_clock_does() -> None:
    order = placed()
    order.confirm(NOW - timedelta(hours=1))
    assert (order.version, order.update_time) == (2, NOW)
    assert only_event(order).create_time == NOW


def test_every_change_changes_the_etag() -> None:
    order = placed()
    etags = {order.etag}
    order.update({"external_ref": "r-1"}, NOW)
    etags.add(order.etag)
    order.confirm(NOW)
    etags.add(order.etag)
    assert len(etags) == 3


def test_events_come_out_oldest_first_and_once() -> None:
    order = Order.place(USER, "ORD-1", {"items": [item()]}, NOW)
    order.confirm(NOW)
    order.process(NOW)
    events = order.take_events()
    assert [event.type for event in events] == ["CREATED", "CONFIRMED", "PROCESSING"]
    assert sorted(events, key=lambda event: event.id) == events
    assert order.take_events() == []
