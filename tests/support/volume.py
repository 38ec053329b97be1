"""A database with many rows in every table that grows, and the plans of the statements executed on it."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import event
from sqlalchemy.pool import Pool

from benchmarks.data import Data, fill
from tests.support.databases import cloned, driver_connection

DATA = Data(users=50_000, orders=80_000)
# This user has a third of all orders, few of them open, and has written a tenth of all notes.
WHOLESALER = DATA.users
# This order has a thousand events.
BUSY_ORDER = 7
# Rows of the tables that `benchmarks.data` does not fill. One user in ten is inactive and one in a hundred deleted;
# one order in a hundred is paid with held credit.
REST = f"""
UPDATE users SET state = 'INACTIVE' WHERE substr(username, 5)::int % 10 = 0;
UPDATE users SET state = 'DELETED', undelete_state = 'ACTIVE', delete_time = update_time,
    purge_time = update_time + interval '30 days' WHERE substr(username, 5)::int % 100 = 0;
INSERT INTO user_passwords SELECT id, '$argon2id$', create_time FROM users;
UPDATE orders SET user_id = '{DATA.user_id(WHOLESALER)}', cancel_reason = NULL,
    status = CASE WHEN substr(order_number, 5)::int % 1000 = 1 THEN 'PENDING' ELSE 'DELIVERED' END,
    tracking_number = CASE WHEN substr(order_number, 5)::int % 1000 <> 1 THEN 'T' END
WHERE substr(order_number, 5)::int % 3 = 1;
UPDATE orders SET credit_state = 'HELD', credit_user_id = user_id, credit_expire_time = create_time + interval '7 days',
    external_ref = order_number
WHERE substr(order_number, 5)::int % 100 = 2;
INSERT INTO tags SELECT uuidv7(), 'tag-' || n FROM generate_series(1, 2000) n;
INSERT INTO tags VALUES (uuidv7(), 'common');
INSERT INTO order_tags SELECT orders.id, tags.id, create_time FROM orders JOIN tags
ON name = 'tag-' || substr(order_number, 5)::int % 4000 OR (name = 'common' AND substr(order_number, 5)::int % 5 = 0);
INSERT INTO order_notes (id, order_id, author_id, body, state, version, create_time, update_time, publish_time, search)
SELECT uuidv7(), id, CASE WHEN n % 10 = 0 THEN '{DATA.user_id(WHOLESALER)}' ELSE user_id END, body,
    CASE WHEN n % 4 = 0 THEN 'DRAFT' ELSE 'PUBLISHED' END, 1, create_time, create_time,
    CASE WHEN n % 4 > 0 THEN create_time END, note_search(body)
FROM (SELECT *, substr(order_number, 5)::int AS n FROM orders) numbered,
LATERAL (SELECT 'A common word about thing' || n % 500 || ' and part' || n AS body) written
WHERE n % 3 = 0 OR n % 1000 < 5;
INSERT INTO credit_accounts SELECT id, 'EUR', 100, 0 FROM users;
INSERT INTO credit_entries (id, transaction_id, user_id, account, type, currency, amount, balance_after, description,
    actor, create_time)
SELECT uuidv7(), uuidv7(), id, 'AVAILABLE', 'GRANT', 'EUR', 1, 1, '', '', create_time
FROM users, generate_series(1, CASE username WHEN 'user{WHOLESALER}' THEN 10000 ELSE 1 END);
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
SELECT uuidv7(), 'order', '{DATA.order_id(BUSY_ORDER)}', 'UPDATED', '', now(), '[]', NULL, NULL
FROM generate_series(1, 1000);
INSERT INTO request_ids SELECT 'anonymous', '/CreateOrder', id, '', '', now() FROM orders LIMIT 20000;
"""
SETTINGS = {
    # The value for SSDs, or for indexes in the cache. With the default, PostgreSQL reads a whole table of this size for
    # some hundreds of its rows, which it would not do with a table of millions of rows.
    "random_page_cost": "1.1",
}
# For statements of the service and for those inside functions and triggers. PostgreSQL sends each plan as a notice on
# the connection that executed the statement, so this works with any client library.
EXPLAIN = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_level": "notice",
    "auto_explain.log_format": "json",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_verbose": "on",
    "auto_explain.log_nested_statements": "on",
}


class Explained(NamedTuple):
    """A statement, and the nodes of its plan."""

    statement: str
    # The root first.
    nodes: list[dict[str, Any]]


@asynccontextmanager
async def volume_database(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """Create a large database that explains every statement, and drop it when the block ends."""
    async with cloned(postgres_url, template_url) as url:
        await fill(url, DATA.users, DATA.orders)
        async with driver_connection(url) as connection:
            await connection.execute(f"SET session_replication_role = replica; {REST}")
            await connection.execute("VACUUM ANALYZE")
            name = await connection.fetchval("SELECT current_database()")
            for setting, value in {**SETTINGS, **EXPLAIN}.items():
                await connection.execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
        yield url


@contextmanager
def listening_to_new_connections() -> Iterator[Callable[[], list[Explained]]]:
    """Collect the plans from connections opened in the block; yields a function that returns the new ones."""
    heard: list[Explained] = []

    def hear(_connection: asyncpg.Connection, message: asyncpg.PostgresLogMessage) -> None:
        _, found, plan = message.message.partition("plan:\n")
        if found:
            explained = json.loads(plan)
            heard.append(Explained(explained["Query Text"], list(_nodes(explained["Plan"]))))

    def listen(connection: Any, _record: object) -> None:
        connection.driver_connection.add_log_listener(hear)

    def take() -> list[Explained]:
        taken = heard[:]
        heard.clear()
        return taken

    event.listen(Pool, "connect", listen)
    try:
        yield take
    finally:
        event.remove(Pool, "connect", listen)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)
