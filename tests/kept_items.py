"""The items that orders have, twice: in rows of their own, and kept as the API sends them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
from commerce.orders.v1.order_pb2 import Order
from google.type.money_pb2 import Money

Items = Mapping[str, Sequence[tuple[Any, ...]]]


async def stored_items(connection: asyncpg.Connection) -> Items:
    """Return the rows of each order."""
    rows = await connection.fetch(
        "SELECT order_id, i.id, product_id, name, quantity, unit_price, subtotal, currency"
        " FROM order_items i JOIN orders o ON o.id = order_id ORDER BY order_id, i.id"
    )
    items: dict[str, list[tuple[Any, ...]]] = {}
    for order_id, item_id, *rest in rows:
        items.setdefault(str(order_id), []).append((str(item_id), *rest))
    return items


async def kept_items(connection: asyncpg.Connection) -> Items:
    """Return what is kept of each order, as it is in rows; orders of which nothing is kept are left out."""
    rows = await connection.fetch("SELECT id, items_message FROM orders WHERE items_message IS NOT NULL")
    kept = {str(row["id"]): Order.FromString(row["items_message"]) for row in rows}
    for order in kept.values():
        assert [field.name for field, _ in order.ListFields()] == ["items"]
    return {
        order_id: [
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
        ]
        for order_id, order in kept.items()
    }


def _amount(money: Money) -> Decimal:
    return money.units + Decimal(money.nanos).scaleb(-9)


def _currency(*amounts: Money) -> str:
    (currency,) = {amount.currency_code for amount in amounts}
    return currency
