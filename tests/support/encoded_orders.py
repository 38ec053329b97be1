"""Orders as columns and rows, and as encoded messages, in one form to compare."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
from commerce.orders.v1.order_pb2 import Order, OrderCreditState, OrderStatus
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

# For each order id, the names of the message's fields with their values.
Orders = Mapping[str, dict[str, Any]]
_STORED = """
SELECT id::text, order_number, user_id::text, status, currency, total_amount, external_ref, metadata::text,
    tracking_number, cancel_reason, credit_state, credit_expire_time, 'v' || version AS etag, create_time, update_time,
    ARRAY(
        SELECT name FROM order_tags JOIN tags t ON t.id = tag_id WHERE order_id = o.id ORDER BY name
    ) AS tags,
    ARRAY(
        SELECT (i.id::text, product_id, name, quantity, unit_price, subtotal, currency)
        FROM order_items i WHERE order_id = o.id ORDER BY i.id
    ) AS items
FROM orders o
"""


async def stored_orders(connection: asyncpg.Connection) -> Orders:
    """Return each order as its columns and rows have it."""
    orders = [dict(row) for row in await connection.fetch(_STORED)]
    for order in orders:
        order["metadata"] = json.loads(order["metadata"])
        order["items"] = [tuple(item) for item in order["items"]]
    return {order["id"]: order for order in orders}


async def encoded_orders(connection: asyncpg.Connection) -> Orders:
    """Return each order as its encoded message has it; skips orders without one."""
    rows = await connection.fetch("SELECT id::text, message FROM orders WHERE message IS NOT NULL")
    return {row["id"]: _columns(Order.FromString(row["message"])) for row in rows}


def _columns(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "order_number": order.order_number,
        "user_id": order.user_id,
        "status": OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_"),
        "currency": order.total_amount.currency_code,
        "total_amount": _amount(order.total_amount),
        "external_ref": order.external_ref or None,
        "metadata": dict(order.metadata),
        "tracking_number": order.tracking_number or None,
        "cancel_reason": order.cancel_reason or None,
        "credit_state": _credit_state(order) if order.HasField("credit") else None,
        "credit_expire_time": _time(order.credit.expire_time) if order.credit.HasField("expire_time") else None,
        "etag": order.etag,
        "create_time": _time(order.create_time),
        "update_time": _time(order.update_time),
        "tags": list(order.tags),
        "items": [
            (
                item.id,
                item.product_id,
                item.name,
                item.quantity,
                _amount(item.unit_price),
                _amount(item.subtotal),
                _currency(item.unit_price, item.subtotal),
            )
            for item in order.items
        ],
    }


def _credit_state(order: Order) -> str:
    return OrderCreditState.Name(order.credit.state).removeprefix("ORDER_CREDIT_STATE_")


def _amount(money: Money) -> Decimal:
    return money.units + Decimal(money.nanos).scaleb(-9)


def _currency(*amounts: Money) -> str:
    (currency,) = {amount.currency_code for amount in amounts}
    return currency


def _time(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)
