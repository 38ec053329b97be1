"""The users of callers, and what the database has of their orders afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.config import DatabaseSettings, load
from service.db.database import Database
from service.server import MESSAGE_ENCODERS
from tests.support.databases import driver_connection
from tests.support.stores import add_user


@dataclass(frozen=True)
class Stored:
    """What the database has of the orders, compared with what callers were told.

    Attributes:
        orders: how many orders there are.
        duplicates: the number of orders beyond the first of each name.
        missing: how many acknowledged orders are missing.
        incomplete: how many orders lack an item or their event, or have more.
    """

    orders: int
    duplicates: int
    missing: int
    incomplete: int


async def create_users(database_url: str, count: int) -> Sequence[str]:
    """Create users without a server, and return their ids."""
    database = Database(load(DatabaseSettings, DATABASE_URL=database_url), MESSAGE_ENCODERS)
    try:
        return [str((await add_user(database)).id) for _ in range(count)]
    finally:
        await database.close()


async def stored(database_url: str, acknowledged: Mapping[str, str]) -> Stored:
    """Compare the orders in the database with what callers were told."""
    query = """
        SELECT id::text, metadata->>'call' AS name,
               (SELECT count(*) FROM order_items i WHERE i.order_id = o.id) AS items,
               (SELECT count(*) FROM events e WHERE e.aggregate_id = o.id AND e.type = 'CREATED') AS events
        FROM orders o
    """
    async with driver_connection(database_url) as connection:
        rows = await connection.fetch(query)
    names = {row["id"]: row["name"] for row in rows}
    return Stored(
        orders=len(rows),
        duplicates=len(rows) - len(set(names.values())),
        missing=sum(names.get(order) != name for name, order in acknowledged.items()),
        incomplete=sum((row["items"], row["events"]) != (1, 1) for row in rows),
    )
