from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from service.domain.errors import AmountOutOfRange, IllegalTransition, InvalidField, MixedCurrencies, OrderNotPending
from service.domain.events import Event, FieldChange
from service.domain.money import Money
from service.domain.orders import (
    HOLD_FOR,
    MAX_ITEMS,
    MAX_QUANTITY,
    OPEN_STATUSES,
    TRANSITIONS,
    CreditState,
    ItemFields,
    Order,
    OrderFields,
    OrderStatus,
)
from service.domain.tags import Tag

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


def test_the_names_of_states_are_those_of_the_table() -> None:
    assert [*OrderStatus] == ["PENDING", "CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED", "CANCELLED"]
    assert [*CreditState] == ["HELD", "POSTED", "VOIDED", "REVERSED", "EXPIRED"]


def test_an_order_has_up_to_five_hundred_items_of_up_to_ten_thousand() -> None:
    assert (MAX_ITEMS, MAX_QUANTITY) == (500, 10_000)
    order = placed(items=[item(quantity=MAX_QUANTITY, price="0.01")] * MAX_ITEMS)
    assert order.total == Money("EUR", Decimal(50_000))


def test_an_item_has_what_was_ordered() -> None:
    (entry,) = placed(items=[item("anvil", 3, "10.50")]).items
    assert (entry.product_id, entry.name, entry.quantity, entry.unit_price) == ("anvil", "Anvil", 3, Decimal("10.50"))
    assert entry.id.version == 7


@pytest.mark.parametrize(
    ("wrong", "field", "problem"),
    [
        ({"items": []}, "order.items", "1 to 500"),
        ({"items": [item(quantity=0)]}, "order.items[0].quantity", "between 1 and 10000"),
        (
            {"items": [item(), ItemFields("\u200b", "Anvil", 1, Money("EUR", Decimal(1)))]},
            "order.items[1].product_id",
            "visible",
        ),
        ({"items": [item(), ItemFields("anvil", " ", 1, Money("EUR", Decimal(1)))]}, "order.items[1].name", "visible"),
        ({"external_ref": "\u200b"}, "order.external_ref", "visible"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_of_an_order_is_named(wrong: OrderFields, field: str, problem: str) -> None:
    order = placed()
    for refusing in (lambda: placed(**wrong), lambda: order.update(wrong, LATER)):
        with pytest.raises(InvalidField, match=problem) as refused:
            refusing()
        assert [violation.field for violation in refused.value.violations] == [field]


def test_without_optional_fields_an_order_has_none() -> None:
    order = placed()
    assert (order.external_ref, order.metadata, order.tags) == (None, {}, [])
    assert (order.credit_state, order.credit_user_id, order.credit_expire_time) == (None, None, None)


@pytest.mark.parametrize(
    ("status", "refused_transition", "field"),
    [
        (OrderStatus.PROCESSING, lambda order: order.ship("\u200b", LATER), "tracking_number"),
        (OrderStatus.PENDING, lambda order: order.cancel("\u200b", LATER), "reason"),
    ],
)
def test_a_tracking_number_and_a_reason_show_something(
    status: OrderStatus, refused_transition: Callable[[Order], None], field: str
) -> None:
    order = order_in(status)
    with pytest.raises(InvalidField) as refused:
        refused_transition(order)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert (order.status, order.take_events()) == (status, [])


@pytest.mark.parametrize("wanted", TRANSITION_METHODS)
def test_a_refused_transition_is_named(wanted: OrderStatus) -> None:
    names = {"CONFIRMED": "confirm", "PROCESSING": "process", "SHIPPED": "ship", "DELIVERED": "deliver"}
    with pytest.raises(IllegalTransition, match=f"^cannot {names.get(wanted, 'cancel')} an order in state DELIVERED;"):
        TRANSITION_METHODS[wanted](order_in(OrderStatus.DELIVERED), LATER)


def test_an_order_that_can_no_longer_be_updated_says_why() -> None:
    with pytest.raises(OrderNotPending, match="the order is SHIPPED; only a PENDING order"):
        order_in(OrderStatus.SHIPPED).update({}, LATER)


def test_events_name_the_owner_and_the_status_after_them() -> None:
    order = Order.place(USER, "ORD-1", {"items": [item()]}, NOW)
    order.cancel("changed my mind", NOW)
    assert [(event.user_id, event.status) for event in order.take_events()] == [(USER, "PENDING"), (USER, "CANCELLED")]


OTHER = UUID("01890000-0000-7000-8000-000000000002")


def paid(state: CreditState | None) -> Order:
    """Return an order that its first owner's credit pays for, with its credit in this state."""
    order = placed()
    if state:
        order.hold_credit(NOW)
    order.user_id = OTHER
    match state:
        case CreditState.POSTED:
            order.post_credit()
        case CreditState.VOIDED:
            order.release_credit()
        case CreditState.REVERSED:
            order.post_credit()
            order.release_credit()
        case CreditState.EXPIRED:
            order.expire_credit(NOW + HOLD_FOR)
    order.take_events()
    return order


STATES = [None, *CreditState]


@pytest.mark.parametrize("state", STATES)
def test_credit_expires_only_while_it_is_held(state: CreditState | None) -> None:
    order = paid(state)
    assert order.credit_state is state
    assert order.credit_expire_time == (NOW + timedelta(days=7) if state is CreditState.HELD else None)
    # The payer stays the payer.
    assert order.credit_user_id == (USER if state else None)


@pytest.mark.parametrize("state", STATES)
def test_credit_that_was_held_is_posted(state: CreditState | None) -> None:
    order = paid(state)
    pays = state in {CreditState.HELD, CreditState.EXPIRED}
    assert order.post_credit() is pays
    assert order.credit_state is (CreditState.POSTED if pays else state)
    assert order.credit_expire_time is None


@pytest.mark.parametrize("state", STATES)
def test_credit_that_is_held_or_spent_is_given_back(state: CreditState | None) -> None:
    order = paid(state)
    released = {CreditState.HELD: CreditState.VOIDED, CreditState.POSTED: CreditState.REVERSED}.get(state)  # type: ignore[arg-type] # None is not a key
    assert order.release_credit() is released
    assert order.credit_state is (released or state)
    assert order.credit_expire_time is None


@pytest.mark.parametrize("state", STATES)
def test_a_hold_expires_after_seven_days(state: CreditState | None) -> None:
    order = paid(state)
    version, end = order.version, NOW + timedelta(days=7)
    assert order.expire_credit(end - timedelta(microseconds=1)) is False
    assert (order.credit_state, order.version, order.take_events()) == (state, version, [])
    expired = state is CreditState.HELD
    assert order.expire_credit(end) is expired
    if not expired:
        assert (order.credit_state, order.version, order.take_events()) == (state, version, [])
        return
    assert (order.credit_state, order.credit_expire_time) == (CreditState.EXPIRED, None)
    assert (order.version, order.update_time) == (version + 1, end)
    event = only_event(order)
    assert (event.type, event.create_time) == ("CREDIT_EXPIRED", end)
    assert event.changes == (FieldChange("credit.state", "HELD", "EXPIRED"),)


@pytest.mark.parametrize("state", STATES)
def test_an_order_can_lose_its_payer(state: CreditState | None) -> None:
    order = paid(state)
    version = order.version
    order.lose_payer(LATER)
    assert (order.credit_state, order.credit_user_id, order.credit_expire_time) == (None, None, None)
    assert order.version == version + 1
    event = only_event(order)
    assert (event.type, event.changes) == ("UPDATED", (FieldChange("credit.state", state or "", ""),))


def test_tags_are_added_to_those_of_the_order_and_removed_by_name() -> None:
    order = placed()
    order.add_tags([Tag(id=uuid7(), name=name) for name in ("gift", "vip")], NOW)
    order.take_events()
    order.remove_tags(["gift", "other"], LATER)
    assert (order.tag_names, order.update_time) == (["vip"], LATER)
    event = only_event(order)
    assert (event.type, event.changes) == ("UPDATED", (FieldChange("tags", "gift, vip", "vip"),))


def test_too_many_tags_are_refused_at_their_field() -> None:
    order = placed()
    with pytest.raises(InvalidField, match="at most 50") as refused:
        order.add_tags([Tag(id=uuid7(), name=f"t{number}") for number in range(51)], NOW)
    assert [violation.field for violation in refused.value.violations] == ["tags"]
