"""Orders as messages."""

from uuid import UUID

from commerce.orders.v1.order_pb2 import FieldChange as FieldChangeMessage
from commerce.orders.v1.order_pb2 import Order as OrderMessage
from commerce.orders.v1.order_pb2 import OrderEvent as OrderEventMessage
from commerce.orders.v1.order_pb2 import OrderEventType
from commerce.orders.v1.order_pb2 import OrderItem as OrderItemMessage
from commerce.orders.v1.order_pb2 import OrderStatus as OrderStatusMessage
from commerce.orders.v1.order_service_pb2 import ListOrdersOrderBy, ListOrdersRequest

from service.application.ports import OrderFilter, Row
from service.domain.events import etag_of
from service.domain.orders import ItemFields, Order, OrderFields, OrderItem, OrderStatus
from service.rpc.messages.values import money, parse_interval, parse_money, timestamp

_STATUSES = {status: OrderStatusMessage.Value(f"ORDER_STATUS_{status}") for status in OrderStatus}
_STATUSES_BACK = {number: status for status, number in _STATUSES.items()}
_EVENT_TYPES = {name.removeprefix("ORDER_EVENT_TYPE_"): number for name, number in OrderEventType.items()}
_ORDER_BY = {
    ListOrdersOrderBy.LIST_ORDERS_ORDER_BY_UNSPECIFIED: "NEWEST",
    ListOrdersOrderBy.LIST_ORDERS_ORDER_BY_NEWEST: "NEWEST",
    ListOrdersOrderBy.LIST_ORDERS_ORDER_BY_OLDEST: "OLDEST",
}
# The attributes that make a position in a list of orders, and of events.
POSITION = ("create_time", "id")
EVENT_POSITION = ("position",)


def order_message(order: Order | Row) -> OrderMessage:
    """Return an order, an entity or a row, as a message."""
    return OrderMessage(
        id=str(order.id),
        order_number=order.order_number,
        user_id=str(order.user_id),
        status=_STATUSES[order.status],
        items=[_item_message(item, order.currency) for item in order.items],
        total_amount=money(order.currency, order.total_amount),
        external_ref=order.external_ref or "",
        metadata=order.metadata,
        tracking_number=order.tracking_number or "",
        cancel_reason=order.cancel_reason or "",
        etag=etag_of(order.version),
        create_time=timestamp(order.create_time),
        update_time=timestamp(order.update_time),
    )


def _item_message(item: OrderItem | Row, currency: str) -> OrderItemMessage:
    return OrderItemMessage(
        id=str(item.id),
        product_id=item.product_id,
        name=item.name,
        quantity=item.quantity,
        unit_price=money(currency, item.unit_price),
        subtotal=money(currency, item.subtotal),
    )


def parse_order_fields(message: OrderMessage, names: frozenset[str]) -> OrderFields:
    """Return the fields of an order that have these names.

    Raises:
        AmountOutOfRange, UnknownCurrency, TooManyDecimals: for the price of an item.
    """
    fields = OrderFields()
    if "items" in names:
        fields["items"] = [_parse_item(item, f"order.items[{index}]") for index, item in enumerate(message.items)]
    if "external_ref" in names:
        fields["external_ref"] = message.external_ref or None
    if "metadata" in names:
        fields["metadata"] = dict(message.metadata)
    return fields


def _parse_item(message: OrderItemMessage, field: str) -> ItemFields:
    return ItemFields(
        product_id=message.product_id,
        name=message.name,
        quantity=message.quantity,
        unit_price=parse_money(message.unit_price, f"{field}.unit_price"),
    )


def parse_order_filter(request: ListOrdersRequest) -> OrderFilter:
    """Return which orders a request lists; raises InvalidField."""
    start, end = parse_interval(request.create_time, "create_time")
    return OrderFilter(
        user_id=UUID(request.user_id) if request.user_id else None,
        statuses=[_STATUSES_BACK[status] for status in request.statuses] or None,
        created_from=start,
        created_before=end,
    )


def parse_order_by(request: ListOrdersRequest) -> str:
    """Return the order that a request lists in."""
    return _ORDER_BY[request.order_by]


def order_event_message(event: Row) -> OrderEventMessage:
    """Return a row of an order's timeline as a message."""
    return OrderEventMessage(
        id=str(event.id),
        order_id=str(event.aggregate_id),
        # A newer server, beside this one while it is replaced, may record types that this one does not know.
        type=_EVENT_TYPES.get(event.type, OrderEventType.ORDER_EVENT_TYPE_UNSPECIFIED),
        actor=event.actor,
        create_time=timestamp(event.create_time),
        changes=[FieldChangeMessage(**change) for change in event.changes],
    )
