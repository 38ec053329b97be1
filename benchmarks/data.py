"""Generate the users and orders that benchmarks run on, the same in every database of the same size.

    DATABASE_URL=postgresql://… python -m benchmarks.data --users 100000 --orders 200000

The database must be migrated and its tables empty. Users and orders are numbered, and every id is computed from a
number, so a workload needs no list of ids. Order n is placed n seconds after `_ORDERS_BEGIN`, so ids grow with times,
as those of UUIDv7 do.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import click
from commerce.orders.v1.order_pb2 import Order, OrderStatus
from commerce.users.v1.user_pb2 import User, UserProfile, UserState
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

# Regulars are the users with the lowest numbers; workloads list only their orders. Each has this many.
ORDERS_OF_A_REGULAR = 100
# At most one of this many users is a regular.
_USERS_TO_A_REGULAR = 50
_USERS_BEGIN = datetime(2025, 1, 1, microsecond=123456, tzinfo=UTC)
_ORDERS_BEGIN = datetime(2026, 1, 1, microsecond=123456, tzinfo=UTC)
# Rows per transaction.
_CHUNK = 50_000
_CONNECTIONS = 2
# A multiplicative hash: spreads consecutive numbers, and gives the same result in Python and in SQL.
_FACTOR, _MODULUS = 2_654_435_761, 2**32
_FIRST_NAMES = ("Ada", "Alan", "Barbara", "Edsger", "Grace", "Ken", "Leslie", "Niklaus")
_LAST_NAMES = ("Dijkstra", "Hopper", "Lamport", "Liskov", "Lovelace", "Thompson", "Turing", "Wirth")
# One of this many users is a superuser.
_USERS_TO_A_SUPERUSER = 1000
_STATUSES = ("PENDING",) * 5 + ("CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED", "CANCELLED")


@dataclass(frozen=True)
class Data:
    """The number of users and orders, and what can be computed about each; they are numbered from 1."""

    users: int
    orders: int

    def __post_init__(self) -> None:
        if not self.regulars:
            least = f"{_USERS_TO_A_REGULAR} users and {2 * ORDERS_OF_A_REGULAR} orders"
            raise ValueError(f"too little data: {self.users} users and {self.orders} orders; use at least {least}")

    @property
    def regulars(self) -> int:
        """The number of regulars, chosen so that half of all orders are theirs, if there are enough users."""
        return min(self.orders // (2 * ORDERS_OF_A_REGULAR), self.users // _USERS_TO_A_REGULAR)

    @property
    def stride(self) -> int:
        """The distance between two orders of regulars; the regulars take turns in placing them."""
        return self.orders // (self.regulars * ORDERS_OF_A_REGULAR)

    def user_id(self, user: int) -> str:
        """Return a user's id."""
        return _uuid(_USERS_BEGIN, user, "7000")

    def order_id(self, order: int) -> str:
        """Return an order's id."""
        return _uuid(_ORDERS_BEGIN, order, "7001")

    def order_number(self, order: int) -> str:
        """Return the order number that is shown to people."""
        return f"ORD-{order:08d}"

    def user_of(self, order: int) -> int:
        """Return the number of the user who placed an order."""
        turn = order // self.stride
        if order % self.stride == 0 and turn <= self.regulars * ORDERS_OF_A_REGULAR:
            return (turn - 1) % self.regulars + 1
        return self.regulars + 1 + _scattered(order) % (self.users - self.regulars)

    def status_of(self, order: int) -> str:
        """Return an order's status; half of all orders are PENDING."""
        return _STATUSES[(_scattered(order) >> 16) % len(_STATUSES)]

    def user_message(self, user: int) -> bytes:
        """Return the encoded message that the service stores in a user's row."""
        created = _timestamp(_USERS_BEGIN, user)
        return User(
            id=self.user_id(user),
            email=f"user{user}@example.com",
            username=f"user{user}",
            full_name=f"{_FIRST_NAMES[user % 8]} {_LAST_NAMES[user // 8 % 8]}",
            profile=UserProfile(bio=f"Collects part number {user}.", avatar_url=f"https://img.example.com/{user}.png"),
            superuser=user % _USERS_TO_A_SUPERUSER == 0,
            state=UserState.USER_STATE_ACTIVE,
            etag="v1",
            create_time=created,
            update_time=created,
        ).SerializeToString()

    def order_message(self, order: int) -> bytes:
        """Return the encoded message that the service stores in an order's row."""
        status = self.status_of(order)
        placed = _timestamp(_ORDERS_BEGIN, order)
        prices = {number: 100 + (order * 7 + number * 331) % 9900 for number in (1, 2, 3)}
        items = [
            {
                "id": _uuid(_ORDERS_BEGIN, order, "7002", order * 3 + number),
                "product_id": f"part-{price}",
                "name": f"Part number {price}",
                "quantity": number,
                "unit_price": _euros(price),
                "subtotal": _euros(price * number),
            }
            for number, price in prices.items()
        ]
        return Order(
            id=self.order_id(order),
            order_number=self.order_number(order),
            user_id=self.user_id(self.user_of(order)),
            status=OrderStatus.Value(f"ORDER_STATUS_{status}"),
            items=items,  # type: ignore[arg-type] # protobuf accepts dicts too; its stubs do not
            total_amount=_euros(sum(price * number for number, price in prices.items())),
            tracking_number=f"1Z{order}" if status in {"SHIPPED", "DELIVERED"} else "",
            cancel_reason="changed my mind" if status == "CANCELLED" else "",
            etag="v1",
            create_time=placed,
            update_time=placed,
        ).SerializeToString()

    def order_of_regular(self, user: int, newest: int) -> int:
        """Return the number of a regular's order, counted from the newest, which is 1."""
        return ((ORDERS_OF_A_REGULAR - newest) * self.regulars + user) * self.stride


def _milliseconds(begin: datetime) -> int:
    return int(begin.timestamp() * 1000)


def _timestamp(begin: datetime, number: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(begin + timedelta(seconds=number))
    return timestamp


def _euros(cents: int) -> Money:
    return Money(currency_code="EUR", units=cents // 100, nanos=cents % 100 * 10_000_000)


def _uuid(begin: datetime, number: int, kind: str, last: int | None = None) -> str:
    time_part = f"{_milliseconds(begin) + number * 1000:012x}"
    return f"{time_part[:8]}-{time_part[8:]}-{kind}-8000-{number if last is None else last:012x}"


def _uuid_sql(begin: datetime, number: str, kind: str, last: str = "") -> str:
    return (
        f"(lpad(to_hex({_milliseconds(begin)} + {number} * 1000), 12, '0') || '{kind}8000'"
        f" || lpad(to_hex({last or number}), 12, '0'))::uuid"
    )


def _number(order_number: str) -> int:
    return int(order_number.removeprefix("ORD-"))


def _scattered(number: int) -> int:
    return number * _FACTOR % _MODULUS


def _users_sql() -> str:
    return f"""
WITH made AS (
    SELECT n, {_uuid_sql(_USERS_BEGIN, "n", "7000")} AS id, 'user' || n AS username,
        (ARRAY{list(_FIRST_NAMES)})[n % 8 + 1] || ' ' || (ARRAY{list(_LAST_NAMES)})[n / 8 % 8 + 1] AS full_name,
        'Collects part number ' || n || '.' AS bio, timestamptz '{_USERS_BEGIN}' + n * interval '1 second' AS time,
        message
    FROM (
        SELECT $1::bigint + i - 1 AS n, message FROM unnest($2::bytea[]) WITH ORDINALITY encoded (message, i)
    ) given
), profiles AS (
    INSERT INTO user_profiles (user_id, bio, avatar_url)
    SELECT id, bio, 'https://img.example.com/' || n || '.png' FROM made
)
INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time, search,
    message)
SELECT id, username || '@example.com', username, full_name, n % {_USERS_TO_A_SUPERUSER} = 0, 'ACTIVE', 1, time, time,
    user_search(username, full_name, bio), message
FROM made
"""  # noqa: S608 - made from our own numbers and names


def _orders_sql(data: Data) -> str:
    regulars, stride, scattered = data.regulars, data.stride, f"(n * {_FACTOR} % {_MODULUS})"
    user = f"""CASE WHEN n % {stride} = 0 AND n / {stride} <= {regulars * ORDERS_OF_A_REGULAR}
        THEN (n / {stride} - 1) % {regulars} + 1 ELSE {regulars + 1} + {scattered} % {data.users - regulars} END"""
    return f"""
WITH numbered AS (
    SELECT n, {_uuid_sql(_ORDERS_BEGIN, "n", "7001")} AS id, {user} AS user_number,
        (ARRAY{list(_STATUSES)})[({scattered} >> 16) % {len(_STATUSES)} + 1] AS status,
        timestamptz '{_ORDERS_BEGIN}' + n * interval '1 second' AS time, message
    FROM (
        SELECT $1::bigint + i - 1 AS n, message FROM unnest($2::bytea[]) WITH ORDINALITY encoded (message, i)
    ) given
), made AS MATERIALIZED (
    SELECT *, {_uuid_sql(_USERS_BEGIN, "user_number", "7000")} AS user_id FROM numbered
), items AS (
    INSERT INTO order_items (order_id, id, product_id, name, quantity, unit_price, subtotal)
    SELECT id, {_uuid_sql(_ORDERS_BEGIN, "n", "7002", "n * 3 + i")}, 'part-' || price, 'Part number ' || price, i,
        price / 100.0, price * i / 100.0
    FROM made, generate_series(1, 3) i, LATERAL (SELECT {_cents("n", "i")} AS price) priced
), created AS (
    INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
    SELECT {_uuid_sql(_ORDERS_BEGIN, "n", "7003")}, 'order', id, 'CREATED', 'anonymous', time, '[]', user_id, 'PENDING'
    FROM made
)
INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, metadata, tracking_number, cancel_reason,
    version, create_time, update_time, message)
SELECT id, 'ORD-' || lpad(n::text, 8, '0'), user_id, status, 'EUR',
    ({_cents("n", "1")} + {_cents("n", "2")} * 2 + {_cents("n", "3")} * 3) / 100.0, '{{}}',
    CASE WHEN status IN ('SHIPPED', 'DELIVERED') THEN '1Z' || n END,
    CASE WHEN status = 'CANCELLED' THEN 'changed my mind' END, 1, time, time, message
FROM made
"""  # noqa: S608 - made from our own numbers


def _cents(order: str, item: str) -> str:
    return f"(100 + ({order} * 7 + {item} * 331) % 9900)"


async def fill(database_url: str, users: int, orders: int) -> None:
    """Fill the empty tables with users and with orders of three items and one event each.

    Needs a superuser: triggers and foreign keys are switched off, because the rows are known to be valid.
    """
    data = Data(users, orders)
    chunks_of_users, chunks_of_orders = _chunks(users), _chunks(orders)

    async def work() -> None:
        async with _connection(database_url) as connection:
            for first, last in chunks_of_users:
                messages = [data.user_message(user) for user in range(first, last + 1)]
                await connection.execute(_users_sql(), first, messages)
            for first, last in chunks_of_orders:
                messages = [data.order_message(order) for order in range(first, last + 1)]
                await connection.execute(_orders_sql(data), first, messages)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(work())
    async with _connection(database_url) as connection:
        await connection.execute("SELECT setval('order_number_seq', $1, false)", orders + 1)
        # Sets hint bits and the visibility map now, so that neither readers nor autovacuum do it while measuring.
        await connection.execute("VACUUM (ANALYZE) users, user_profiles, orders, order_items, events")
        await connection.execute("CHECKPOINT")


async def reset(database_url: str, data: Data) -> None:
    """Undo what workloads write to a filled database: new orders, confirmed orders, events and request ids."""
    last = data.order_id(data.orders)
    async with _connection(database_url) as connection:
        async with connection.transaction():
            for table, key in {"order_items": "order_id", "order_tags": "order_id", "orders": "id"}.items():
                await connection.execute(f"DELETE FROM {table} WHERE {key} > $1", last)  # noqa: S608 - names of our own
            await connection.execute("DELETE FROM events WHERE id > $1", _uuid(_ORDERS_BEGIN, data.orders, "7003"))
            await connection.execute("DELETE FROM request_ids")
            confirmed = await connection.fetch(
                "UPDATE orders SET status = 'PENDING', version = 1, update_time = create_time"
                " WHERE status = 'CONFIRMED' AND version > 1 RETURNING id, order_number"
            )
            # Triggers are switched off, so the encoded messages must be restored here.
            messages = [(order["id"], data.order_message(_number(order["order_number"]))) for order in confirmed]
            await connection.executemany("UPDATE orders SET message = $2 WHERE id = $1", messages)
        await connection.execute("VACUUM orders, order_items, events, request_ids")


@asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        database_url.replace("+asyncpg", ""), server_settings={"session_replication_role": "replica"}
    )
    try:
        yield connection
    finally:
        await connection.close()


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    for first in range(1, count + 1, _CHUNK):
        yield first, min(first + _CHUNK - 1, count)


@click.command()
@click.option("--users", default=100_000, show_default=True)
@click.option("--orders", default=200_000, show_default=True)
def main(users: int, orders: int) -> None:
    """Fill the migrated, empty database of DATABASE_URL."""
    started = time.monotonic()
    asyncio.run(fill(os.environ["DATABASE_URL"], users, orders))
    click.echo(f"inserted {users} users and {orders} orders in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
