"""What the database has of orders and events, in the form of `tests.faults.history`."""

from collections.abc import Mapping, Sequence

from tests.faults.history import Order
from tests.support.databases import driver_connection

_ORDERS = """
SELECT id::text, status, version,
       ARRAY(SELECT type FROM events WHERE aggregate_id = o.id AND aggregate_type = 'order'
             ORDER BY xid, position) AS events
FROM orders o
"""
_EVENTS = "SELECT aggregate_id::text, id::text, type FROM events WHERE aggregate_type = 'order' ORDER BY xid, position"
_CREDIT = "SELECT user_id::text, available, held FROM credit_accounts"


async def stored_orders(url: str) -> Mapping[str, Order]:
    """Return the orders by their ids."""
    async with driver_connection(url) as connection:
        rows = await connection.fetch(_ORDERS)
    return {row["id"]: Order(row["status"], row["version"], row["events"]) for row in rows}


async def watched_events(url: str) -> Sequence[tuple[str, str, str]]:
    """Return the order's id, the id and the type of every event of an order, in the order of the log."""
    async with driver_connection(url) as connection:
        return [tuple(row) for row in await connection.fetch(_EVENTS)]


async def stored_credit(url: str) -> Mapping[str, tuple[int, int]]:
    """Return the available and the held credit of each user, in cents."""
    async with driver_connection(url) as connection:
        rows = await connection.fetch(_CREDIT)
    return {row["user_id"]: (int(100 * row["available"]), int(100 * row["held"])) for row in rows}
