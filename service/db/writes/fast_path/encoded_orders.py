"""Reads orders without a lock, as their encoded messages."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import select

from service.application.ports.errors import DeadlineExceeded, NeedsTransaction
from service.application.ports.unit_of_work import EncodedOrder
from service.db.arrays import is_one_of
from service.db.connections.statement import Statement
from service.db.tables import orders
from service.domain.errors import OrderNotFound
from service.domain.orders import OrderStatus

_COLUMNS = [field.name for field in fields(EncodedOrder)]
ENCODED_ORDERS_BY_IDS = Statement(
    "encoded_orders_by_ids", select(*(orders.c[name] for name in _COLUMNS)).where(is_one_of(orders.c.id, "ids"))
)

# Reads one row of ENCODED_ORDERS_BY_IDS, None if there is none.
LoadRow = Callable[[UUID], Awaitable[Any]]


async def read_encoded_order(load: LoadRow, order_id: UUID, seconds_left: float) -> EncodedOrder:
    """Return an order as it is now; it may have changed by the time it is written.

    Raises:
        OrderNotFound: there is no such order.
        NeedsTransaction: credit pays for the order, or its row has no encoded message.
        DeadlineExceeded: the row was not read within `seconds_left`.
    """
    try:
        async with asyncio.timeout(max(0, seconds_left)):
            row = await load(order_id)
    except TimeoutError as error:
        raise DeadlineExceeded from error
    if row is None:
        raise OrderNotFound(str(order_id))
    if row.credit_state is not None or row.message is None:
        raise NeedsTransaction
    columns = dict(zip(_COLUMNS, row, strict=True))
    columns["status"] = OrderStatus(row.status)
    return EncodedOrder(**columns)
