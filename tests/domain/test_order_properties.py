"""Any sequence of calls at any times leaves an order valid."""

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.domain.errors import DomainError, IllegalTransition, OrderNotPending
from service.domain.money import AMOUNT_LIMIT, Money
from service.domain.orders import MAX_QUANTITY, TRANSITIONS, ItemFields, Order, OrderFields, OrderItem, OrderStatus
from tests.support.properties import amounts, many_calls, times

USER = UUID("01890000-0000-7000-8000-000000000001")

# Mostly valid ones, so that orders make progress; the others must be refused.
quantities = st.integers(1, 50) | st.sampled_from([-1, 0, MAX_QUANTITY, MAX_QUANTITY + 1])
prices = amounts("EUR") | amounts("EUR", "JPY", "CLF") | st.just(Money("EUR", AMOUNT_LIMIT - Decimal("0.01")))
items = st.lists(st.builds(ItemFields, st.text(max_size=5), st.text(max_size=5), quantities, prices), max_size=4)
updates: st.SearchStrategy[OrderFields] = st.fixed_dictionaries(
    {},
    optional={
        "items": items,
        "external_ref": st.none() | st.sampled_from(["r-1", "r-2"]),
        "metadata": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
    },
)  # type: ignore[assignment] # the dictionaries are as OrderFields says


class Orders(RuleBasedStateMachine):
    order: Order

    @initialize(now=times)
    def place(self, now: datetime) -> None:
        anvils = ItemFields("anvil", "Anvil", 2, Money("EUR", Decimal("10.50")))
        self.order = Order.place(USER, "ORD-1", {"items": [anvils]}, now)
        self.etags = {self.order.etag}

    @rule(update=updates, now=times)
    def update(self, update: OrderFields, now: datetime) -> None:
        pending = self.order.status is OrderStatus.PENDING
        refused = self._call(lambda: self.order.update(update, now), now, to=OrderStatus.PENDING)
        assert isinstance(refused, OrderNotPending) is not pending
        if refused is None:
            for name, value in update.items():
                assert name == "items" or getattr(self.order, name) == value
            assert len(update.get("items", self.order.items)) == len(self.order.items)

    @rule(now=times)
    def confirm(self, now: datetime) -> None:
        self._go(OrderStatus.CONFIRMED, now, lambda: self.order.confirm(now))

    @rule(now=times)
    def process(self, now: datetime) -> None:
        self._go(OrderStatus.PROCESSING, now, lambda: self.order.process(now))

    @rule(now=times)
    def ship(self, now: datetime) -> None:
        self._go(OrderStatus.SHIPPED, now, lambda: self.order.ship("TRACK-1", now))

    @rule(now=times)
    def deliver(self, now: datetime) -> None:
        self._go(OrderStatus.DELIVERED, now, lambda: self.order.deliver(now))

    @rule(now=times)
    def cancel(self, now: datetime) -> None:
        self._go(OrderStatus.CANCELLED, now, lambda: self.order.cancel("changed my mind", now))

    @invariant()
    def the_total_is_the_sum_of_the_items(self) -> None:
        order = self.order
        assert order.items
        for item in order.items:
            assert 1 <= item.quantity <= MAX_QUANTITY
            assert item.subtotal == item.quantity * item.unit_price
        assert 0 <= order.total_amount == sum(item.subtotal for item in order.items) < AMOUNT_LIMIT

    @invariant()
    def tracking_number_and_reason_belong_to_the_status(self) -> None:
        order = self.order
        assert (order.tracking_number is not None) == (order.status in {OrderStatus.SHIPPED, OrderStatus.DELIVERED})
        assert (order.cancel_reason is not None) == (order.status is OrderStatus.CANCELLED)

    @invariant()
    def every_change_has_one_event(self) -> None:
        events = self.order.__dict__["_pending_events"]
        assert len(events) == self.order.version
        event_times = [event.create_time for event in events]
        assert event_times == sorted(event_times)
        assert event_times[-1] == self.order.update_time >= self.order.create_time

    def _go(self, wanted: OrderStatus, now: datetime, transition: Callable[[], None]) -> None:
        allowed = wanted in TRANSITIONS[self.order.status]
        refused = self._call(transition, now, to=wanted)
        assert isinstance(refused, IllegalTransition) is not allowed

    def _call(self, call: Callable[[], None], now: datetime, *, to: OrderStatus) -> DomainError | None:
        before = snapshot(self.order)
        try:
            call()
        except DomainError as refused:
            assert snapshot(self.order) == before
            return refused
        if snapshot(self.order) == before:
            assert to is OrderStatus.PENDING
            return None
        assert self.order.status is to
        assert self.order.version == before["version"] + 1
        assert self.order.update_time == max(now, before["update_time"])
        assert self.order.etag not in self.etags
        self.etags.add(self.order.etag)
        return None


def snapshot(order: Order) -> dict[str, Any]:
    """Return a copy of everything that an order holds, including its pending events."""
    held = {field.name: getattr(order, field.name) for field in fields(Order)}
    items = [{field.name: getattr(item, field.name) for field in fields(OrderItem)} for item in order.items]
    return {**held, "metadata": dict(order.metadata), "items": items, "events": list(order.__dict__["_pending_events"])}


def test_no_sequence_of_calls_leaves_a_wrong_order() -> None:
    run_state_machine_as_test(Orders, settings=many_calls)
