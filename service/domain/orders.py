"""Orders: the items that a user ordered, and their status."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import TypedDict
from uuid import UUID

from service.domain.errors import IllegalTransition, InvalidField, OrderNotPending
from service.domain.events import Entity, Event, FieldChange
from service.domain.ids import uuid7, uuid7_beside
from service.domain.money import Money, total
from service.domain.tags import MAX_TAGS, Tag
from service.domain.text import is_blank, require_visible

MAX_ITEMS = 500
MAX_QUANTITY = 10_000


class OrderStatus(StrEnum):
    """The stages of an order."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    PROCESSING = "PROCESSING"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


class CreditState(StrEnum):
    """The state of the credit that pays for an order."""

    HELD = "HELD"
    POSTED = "POSTED"
    VOIDED = "VOIDED"
    REVERSED = "REVERSED"
    EXPIRED = "EXPIRED"


# Credit is held for an unconfirmed order for this long.
HOLD_FOR = timedelta(days=7)

TRANSITIONS: Mapping[OrderStatus, tuple[OrderStatus, ...]] = MappingProxyType(
    {
        OrderStatus.PENDING: (OrderStatus.CONFIRMED, OrderStatus.CANCELLED),
        OrderStatus.CONFIRMED: (OrderStatus.PROCESSING, OrderStatus.CANCELLED),
        OrderStatus.PROCESSING: (OrderStatus.SHIPPED, OrderStatus.CANCELLED),
        OrderStatus.SHIPPED: (OrderStatus.DELIVERED,),
        OrderStatus.DELIVERED: (),
        OrderStatus.CANCELLED: (),
    }
)
# Statuses before shipment or cancellation.
OPEN_STATUSES = (OrderStatus.PENDING, OrderStatus.CONFIRMED, OrderStatus.PROCESSING)


@dataclass(frozen=True, slots=True)
class ItemFields:
    """The fields of an item that a client sets."""

    product_id: str
    name: str
    quantity: int
    unit_price: Money


class OrderFields(TypedDict, total=False):
    """The fields of an order that a client can set."""

    items: Sequence[ItemFields]
    external_ref: str | None
    metadata: Mapping[str, str]


@dataclass(eq=False, kw_only=True)
class OrderItem:
    """A quantity of one product. Its amounts are in the currency of the order."""

    id: UUID
    product_id: str
    name: str
    quantity: int
    unit_price: Decimal
    subtotal: Decimal


@dataclass(eq=False, kw_only=True)
class OrderHeader(Entity):
    """The fields of an order that transitions and credit need, without items and tags; only methods set `status`."""

    aggregate_type = "order"

    id: UUID
    user_id: UUID
    status: OrderStatus
    currency: str
    total_amount: Decimal
    tracking_number: str | None = None
    cancel_reason: str | None = None
    # Set if the user's credit pays for the order, always for its total.
    credit_state: CreditState | None = None
    # The user whose credit pays: the one who placed the order, even after the order was transferred.
    credit_user_id: UUID | None = None
    # Set while HELD.
    credit_expire_time: datetime | None = None
    version: int
    update_time: datetime

    @property
    def total(self) -> Money:
        """The sum of the items' subtotals."""
        return Money(self.currency, self.total_amount)

    def confirm(self, now: datetime) -> None:
        """Change from PENDING to CONFIRMED; raises IllegalTransition."""
        self._change_status("confirm", OrderStatus.CONFIRMED, now)

    def process(self, now: datetime) -> None:
        """Change from CONFIRMED to PROCESSING; raises IllegalTransition."""
        self._change_status("process", OrderStatus.PROCESSING, now)

    def ship(self, tracking_number: str, now: datetime) -> None:
        """Change from PROCESSING to SHIPPED; raises InvalidField and IllegalTransition."""
        require_visible(tracking_number, "tracking_number")
        self._change_status("ship", OrderStatus.SHIPPED, now, FieldChange("tracking_number", "", tracking_number))
        self.tracking_number = tracking_number

    def deliver(self, now: datetime) -> None:
        """Change from SHIPPED to DELIVERED; raises IllegalTransition."""
        self._change_status("deliver", OrderStatus.DELIVERED, now)

    def cancel(self, reason: str, now: datetime) -> None:
        """Change from an open status to CANCELLED; raises InvalidField and IllegalTransition."""
        require_visible(reason, "reason")
        self._change_status("cancel", OrderStatus.CANCELLED, now, FieldChange("cancel_reason", "", reason))
        self.cancel_reason = reason

    def hold_credit(self, now: datetime) -> None:
        """Record that credit is held for the new order."""
        self.credit_state, self.credit_expire_time = CreditState.HELD, now + HOLD_FOR
        self.credit_user_id = self.user_id

    def post_credit(self) -> bool:
        """Record that the credit is spent, and return whether credit pays for the order."""
        if self.credit_state not in {CreditState.HELD, CreditState.EXPIRED}:
            return False
        self.credit_state, self.credit_expire_time = CreditState.POSTED, None
        return True

    def release_credit(self) -> CreditState | None:
        """Record that the credit is given back, and return its new state; None if there is no credit to give back."""
        released = {CreditState.HELD: CreditState.VOIDED, CreditState.POSTED: CreditState.REVERSED}.get(
            self.credit_state  # type: ignore[arg-type] # None is not a key
        )
        if released:
            self.credit_state, self.credit_expire_time = released, None
        return released

    def expire_credit(self, now: datetime) -> bool:
        """If the hold has expired, record that; return whether it has."""
        if (
            self.credit_state is not CreditState.HELD
            or self.credit_expire_time is None
            or self.credit_expire_time > now
        ):
            return False
        change = FieldChange("credit.state", self.credit_state, CreditState.EXPIRED)
        self.credit_state, self.credit_expire_time = CreditState.EXPIRED, None
        self.changed("CREDIT_EXPIRED", now, [change])
        return True

    def lose_payer(self, now: datetime) -> None:
        """Record that the user whose credit pays is purged: no credit pays for the order any more."""
        change = FieldChange("credit.state", self.credit_state or "")
        self.credit_state = self.credit_user_id = self.credit_expire_time = None
        self.changed("UPDATED", now, [change])

    def _event(self, event_type: str, now: datetime, changes: tuple[FieldChange, ...]) -> Event:
        return Event(self.aggregate_type, self.id, event_type, now, changes, user_id=self.user_id, status=self.status)

    def _change_status(self, transition: str, status: OrderStatus, now: datetime, *changes: FieldChange) -> None:
        allowed = TRANSITIONS[self.status]
        if status not in allowed:
            raise IllegalTransition(self.subject, f"{transition} an order", self.status, allowed)
        change = FieldChange("status", self.status, status)
        self.status = status
        self.changed(status, now, [change, *changes])


@dataclass(eq=False, kw_only=True)
class Order(OrderHeader):
    """An order with its items. Only its methods change the items and the total."""

    order_number: str
    external_ref: str | None
    metadata: dict[str, str]
    create_time: datetime
    # Sorted by id, the order in which the client sent them.
    items: list[OrderItem] = field(default_factory=list)
    # Not sorted.
    tags: list[Tag] = field(default_factory=list)

    @classmethod
    def place(cls, user_id: UUID, order_number: str, fields: OrderFields, now: datetime) -> "Order":
        """Return a new PENDING order.

        Raises:
            InvalidField: there are no items, too many items, a quantity is out of range, or a name shows nothing.
            MixedCurrencies, AmountOutOfRange: as in `service.domain.money.total`.
        """
        items, sum_of_items = _priced(fields.get("items", ()))
        require_visible(fields.get("external_ref"), "order.external_ref")
        order = cls(
            id=uuid7_beside(user_id),
            order_number=order_number,
            user_id=user_id,
            status=OrderStatus.PENDING,
            currency=sum_of_items.currency,
            total_amount=sum_of_items.amount,
            external_ref=fields.get("external_ref"),
            metadata=dict(fields.get("metadata", {})),
            version=1,
            create_time=now,
            update_time=now,
            items=items,
        )
        order.record("CREATED", now)
        return order

    @property
    def tag_names(self) -> list[str]:
        """The names of the tags, sorted."""
        return sorted(tag.name for tag in self.tags)

    def update(self, fields: OrderFields, now: datetime) -> None:
        """Replace these fields and recompute the total.

        Raises:
            OrderNotPending: the order is not PENDING.
            InvalidField, MixedCurrencies, AmountOutOfRange: as in `place`.
        """
        if self.status is not OrderStatus.PENDING:
            message = f"the order is {self.status}; only a PENDING order can be changed"
            raise OrderNotPending(self.subject, message, {"status": self.status})
        changes: list[FieldChange] = []
        if "items" in fields:
            old_total = self.total
            items, sum_of_items = _priced(fields["items"])
            self.items[:] = items
            self.currency, self.total_amount = sum_of_items.currency, sum_of_items.amount
            changes.append(FieldChange("items"))
            if sum_of_items != old_total:
                changes.append(FieldChange("total_amount", str(old_total), str(sum_of_items)))
        require_visible(fields.get("external_ref"), "order.external_ref")
        if "external_ref" in fields and fields["external_ref"] != self.external_ref:
            changes.append(FieldChange("external_ref", self.external_ref or "", fields["external_ref"] or ""))
            self.external_ref = fields["external_ref"]
        if "metadata" in fields and fields["metadata"] != self.metadata:
            changes.append(FieldChange("metadata"))
            self.metadata = dict(fields["metadata"])
        if changes:
            self.changed("UPDATED", now, changes)

    def add_tags(self, tags: Sequence[Tag], now: datetime) -> None:
        """Add tags, in any status; raises InvalidField if the order would have too many."""
        names = self.tag_names
        self._set_tags([*self.tags, *(tag for tag in tags if tag.name not in names)], now)

    def remove_tags(self, names: Collection[str], now: datetime) -> None:
        """Remove tags, in any status."""
        self._set_tags([tag for tag in self.tags if tag.name not in names], now)

    def _set_tags(self, tags: Sequence[Tag], now: datetime) -> None:
        if len(tags) == len(self.tags):
            return
        if len(tags) > MAX_TAGS:
            raise InvalidField.at("tags", f"must leave the order with at most {MAX_TAGS} tags")
        old_names = self.tag_names
        self.tags[:] = tags
        # Unambiguous, because no tag contains a space.
        self.changed("UPDATED", now, [FieldChange("tags", ", ".join(old_names), ", ".join(self.tag_names))])


def _priced(items: Sequence[ItemFields]) -> tuple[list[OrderItem], Money]:
    """Return the items with their subtotals, and the sum of the subtotals."""
    if not 1 <= len(items) <= MAX_ITEMS:
        raise InvalidField.at("order.items", f"must have 1 to {MAX_ITEMS} items")
    priced: list[OrderItem] = []
    subtotals: list[Money] = []
    for index, item in enumerate(items):
        if not 1 <= item.quantity <= MAX_QUANTITY:
            raise InvalidField.at(f"order.items[{index}].quantity", f"must be between 1 and {MAX_QUANTITY}")
        if is_blank(item.product_id) or is_blank(item.name):
            field = "product_id" if is_blank(item.product_id) else "name"
            raise InvalidField.at(f"order.items[{index}].{field}", "must contain a visible character")
        subtotal = item.unit_price.times(item.quantity, f"order.items[{index}]")
        subtotals.append(subtotal)
        priced.append(
            OrderItem(
                id=uuid7(),
                product_id=item.product_id,
                name=item.name,
                quantity=item.quantity,
                unit_price=item.unit_price.amount,
                subtotal=subtotal.amount,
            )
        )
    return priced, total(subtotals, "order.items")
