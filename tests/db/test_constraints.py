"""What the database refuses by itself, whatever program writes."""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest

from tests.support import driver_connection

ADA = "00000000-0000-7000-8000-00000000000a"
GRACE = "00000000-0000-7000-8000-00000000000b"
ORDER = "00000000-0000-7000-8000-00000000000c"
OTHER_ORDER = "00000000-0000-7000-8000-00000000000d"
ITEM = "00000000-0000-7000-8000-00000000000e"
EVENT = "00000000-0000-7000-8000-00000000000f"
NOBODY = "00000000-0000-7000-8000-000000000000"

VALID_ROWS = f"""
INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time) VALUES
    ('{ADA}', 'constrained.ada@example.com', 'constrained.ada', 'Ada', false, 'ACTIVE', 1, now(), now()),
    ('{GRACE}', 'constrained.grace@example.com', 'constrained.grace', 'Grace', false, 'ACTIVE', 1, now(), now());
INSERT INTO user_passwords VALUES ('{ADA}', '$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA', now());
INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, external_ref, metadata, version,
        create_time, update_time) VALUES
    ('{ORDER}', 'CON-1', '{ADA}', 'PENDING', 'EUR', 21, 'one', '{{}}', 1, now(), now()),
    ('{OTHER_ORDER}', 'CON-2', '{ADA}', 'PENDING', 'EUR', 5, 'two', '{{}}', 1, now(), now());
INSERT INTO order_items VALUES
    ('{ORDER}', '{ITEM}', 'anvil', 'Anvil', 2, 10.5, 21),
    ('{OTHER_ORDER}', '{ITEM}', 'bolt', 'Bolt', 1, 5, 5);
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes) VALUES
    ('{EVENT}', 'order', '{ORDER}', 'CREATED', 'anonymous', now(), '[]');
INSERT INTO request_ids (caller, method, request_id, body_digest, response) VALUES
    ('anonymous', '/method', '{EVENT}', '', '');
SET CONSTRAINTS ALL IMMEDIATE;
"""


@pytest.fixture
async def connection(shared_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that is never committed, in which there is one good row of each kind."""
    async with driver_connection(shared_database_url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(VALID_ROWS)
        # Deferred again, as for the service.
        await connection.execute("SET CONSTRAINTS ALL DEFERRED")
        yield connection
        await transaction.rollback()


class Case(NamedTuple):
    constraint: str
    statement: str


def users(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE users SET {change} WHERE id = '{ADA}'") for change in changes]


def passwords(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE user_passwords SET {change} WHERE user_id = '{ADA}'") for change in changes]


def orders(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE orders SET {change} WHERE id = '{ORDER}'") for change in changes]


def items(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE order_items SET {change} WHERE order_id = '{ORDER}'") for change in changes]


EVENT_COLUMNS = "events (id, aggregate_type, aggregate_id, type, actor, create_time, changes)"
# Of the same user, for the same amount, without items.
ANOTHER_ORDER = f"""
SELECT '{NOBODY}', 'CON-3', user_id, status, currency, total_amount, 'three', metadata, tracking_number, cancel_reason,
    version, create_time, update_time FROM orders WHERE id = '{ORDER}'
"""
LONG = "repeat('x', {})"
CASES = [
    *users("ck_users_email", "email = 'ab'", f"email = {LONG.format(255)}"),
    *users("ck_users_username", "username = 'ab'", "username = 'Ada'", f"username = {LONG.format(51)}"),
    *users("ck_users_full_name", f"full_name = {LONG.format(201)}"),
    *users("ck_users_state", "state = 'ASLEEP'", "state = 'active'"),
    *users(
        "ck_users_deleted",
        "state = 'DELETED'",
        "state = 'DELETED', undelete_state = 'ACTIVE', delete_time = now()",
        "state = 'DELETED', undelete_state = 'DELETED', delete_time = now(), purge_time = now()",
        "state = 'DELETED', delete_time = now(), purge_time = now()",
        "delete_time = now()",
        "purge_time = now()",
        "undelete_state = 'ACTIVE'",
    ),
    *users("ck_users_version", "version = 0"),
    *users("ck_users_update_time", "update_time = create_time - interval '1 microsecond'"),
    *users("uq_users_email", "email = 'Constrained.GRACE@example.com'"),
    *users("uq_users_username", "username = 'constrained.grace'"),
    *users("pk_users", f"id = '{GRACE}'"),
    *passwords("ck_user_passwords_password_hash", "password_hash = 'secret'", "password_hash = '$argon2i$v=19$'"),
    *passwords("fk_user_passwords_user_id_users", f"user_id = '{NOBODY}'"),
    Case("pk_user_passwords", f"INSERT INTO user_passwords SELECT * FROM user_passwords WHERE user_id = '{ADA}'"),
    *orders("ck_orders_status", "status = 'LOST'", "status = 'pending'"),
    *orders("ck_orders_currency", "currency = 'eur'", "currency = 'EURO'", "currency = ''"),
    *orders("ck_orders_total_amount", "total_amount = -0.01"),
    *orders("ck_orders_external_ref", "external_ref = ''", f"external_ref = {LONG.format(101)}"),
    *orders("ck_orders_metadata", "metadata = '[]'", "metadata = 'null'", "metadata = '\"text\"'"),
    *orders(
        "ck_orders_tracking_number",
        "tracking_number = 'T-1'",
        "status = 'SHIPPED'",
        "status = 'DELIVERED'",
        "status = 'CONFIRMED', tracking_number = 'T-1'",
        "status = 'CANCELLED', cancel_reason = 'no', tracking_number = 'T-1'",
    ),
    *orders(
        "ck_orders_cancel_reason",
        "cancel_reason = 'no'",
        "status = 'CANCELLED'",
        "status = 'SHIPPED', tracking_number = 'T-1', cancel_reason = 'no'",
    ),
    *orders("ck_orders_version", "version = 0"),
    *orders("ck_orders_update_time", "update_time = create_time - interval '1 microsecond'"),
    *orders("uq_orders_order_number", "order_number = 'CON-2'"),
    *orders("uq_orders_user_id_external_ref", "external_ref = 'two'"),
    *orders("pk_orders", f"id = '{OTHER_ORDER}'"),
    *orders("fk_orders_user_id_users", f"user_id = '{NOBODY}'"),
    Case("fk_orders_user_id_users", f"DELETE FROM users WHERE id = '{ADA}'"),
    *orders("order_total", "total_amount = 20.99", "total_amount = 0"),
    Case("order_total", f"INSERT INTO orders {ANOTHER_ORDER}"),
    *items("ck_order_items_product_id", "product_id = ''", f"product_id = {LONG.format(101)}"),
    *items("ck_order_items_name", "name = ''", f"name = {LONG.format(201)}"),
    *items("ck_order_items_quantity", "quantity = 0, subtotal = 0", "quantity = -1, subtotal = -10.5"),
    *items("ck_order_items_quantity", "quantity = 10001, subtotal = 10001 * 10.5"),
    *items("ck_order_items_unit_price", "unit_price = -1, subtotal = -2"),
    *items("ck_order_items_subtotal", "subtotal = 20.9999", "unit_price = 10", "quantity = 3"),
    *items("pk_order_items", f"order_id = '{OTHER_ORDER}'"),
    *items("fk_order_items_order_id_orders", f"order_id = '{NOBODY}'"),
    Case(
        "ck_events_aggregate_type", f"INSERT INTO {EVENT_COLUMNS} VALUES ('{ADA}', 'cat', '{ADA}', '', '', now(), '[]')"
    ),
    Case("ck_events_changes", f"INSERT INTO {EVENT_COLUMNS} VALUES ('{ADA}', 'user', '{ADA}', '', '', now(), '{{}}')"),
    Case("uq_events_id", f"INSERT INTO {EVENT_COLUMNS} VALUES ('{EVENT}', 'user', '{ADA}', '', '', now(), '[]')"),
    Case("pk_events", f"INSERT INTO events OVERRIDING SYSTEM VALUE SELECT * FROM events WHERE id = '{EVENT}'"),
    Case("pk_request_ids", f"INSERT INTO request_ids SELECT * FROM request_ids WHERE request_id = '{EVENT}'"),
    Case("ck_signing_keys_one_row", "INSERT INTO signing_keys SELECT 2, key FROM signing_keys"),
    Case("ck_signing_keys_key", "UPDATE signing_keys SET key = 'short'"),
    Case("pk_signing_keys", "INSERT INTO signing_keys SELECT * FROM signing_keys"),
]


def case_id(case: Case) -> str:
    return f"{case.constraint}: {' '.join(case.statement.split())[:60]}"


async def assert_refused(connection: asyncpg.Connection, case: Case) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as raised:
        # What is checked at COMMIT is checked now.
        await connection.execute(f"{case.statement}; SET CONSTRAINTS ALL IMMEDIATE")
    assert raised.value.constraint_name == case.constraint


@pytest.mark.parametrize("case", CASES, ids=case_id)
async def test_what_must_never_be_is_refused(connection: asyncpg.Connection, case: Case) -> None:
    await assert_refused(connection, case)


@pytest.mark.parametrize(
    "case",
    [
        *items("order_total", "quantity = 1, subtotal = 10.5"),
        Case("order_total", f"DELETE FROM order_items WHERE order_id = '{ORDER}'"),
        Case("order_total", f"INSERT INTO order_items VALUES ('{ORDER}', '{NOBODY}', 'bolt', 'Bolt', 1, 5, 5)"),
    ],
    ids=["change", "delete", "insert"],
)
async def test_items_that_do_not_add_up_to_the_total_are_refused(connection: asyncpg.Connection, case: Case) -> None:
    await assert_refused(connection, case)


LARGEST_QUANTITY = f"""
UPDATE order_items SET quantity = 10000, subtotal = 105000 WHERE order_id = '{ORDER}';
UPDATE orders SET total_amount = 105000 WHERE id = '{ORDER}'
"""
ALLOWED = [
    *users("none", "state = 'INACTIVE'", "full_name = ''", "email = 'Constrained.ADA@example.com'"),
    *users("none", "state = 'DELETED', undelete_state = 'INACTIVE', delete_time = now(), purge_time = now()"),
    *orders("none", f"user_id = '{GRACE}', external_ref = 'two'"),
    *orders("none", "status = 'SHIPPED', tracking_number = 'T-1'", "status = 'DELIVERED', tracking_number = 'T-1'"),
    *orders("none", "status = 'CANCELLED', cancel_reason = 'no'"),
    Case("none", f"UPDATE orders SET external_ref = NULL WHERE user_id = '{ADA}'"),
    Case("none", LARGEST_QUANTITY),
    Case("none", f"DELETE FROM orders WHERE id = '{ORDER}'"),
    Case("none", f"DELETE FROM users WHERE id = '{GRACE}'"),
]


@pytest.mark.parametrize("case", ALLOWED, ids=case_id)
async def test_what_may_be_is_taken(connection: asyncpg.Connection, case: Case) -> None:
    await connection.execute(f"{case.statement}; SET CONSTRAINTS ALL IMMEDIATE")


async def test_a_total_is_checked_when_the_transaction_commits(database_url: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute(VALID_ROWS)
        with pytest.raises(asyncpg.CheckViolationError) as raised:
            async with connection.transaction():
                await connection.execute("UPDATE orders SET total_amount = 1")
        assert raised.value.constraint_name == "order_total"
        assert await connection.fetchval("SELECT sum(total_amount) FROM orders") == 26


@pytest.mark.parametrize(
    "statement", [f"UPDATE events SET actor = 'me' WHERE id = '{EVENT}'", "UPDATE events SET actor = 'me' WHERE false"]
)
async def test_events_are_not_changed(connection: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await connection.execute(statement)


async def test_positions_of_events_are_not_chosen(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await connection.execute("INSERT INTO events SELECT * FROM events")


async def test_a_user_takes_its_password_along_and_an_order_its_items(connection: asyncpg.Connection) -> None:
    await connection.execute(f"DELETE FROM orders WHERE user_id = '{ADA}'; DELETE FROM users WHERE id = '{ADA}'")
    assert await connection.fetch(f"SELECT FROM order_items WHERE order_id IN ('{ORDER}', '{OTHER_ORDER}')") == []
    assert await connection.fetch(f"SELECT FROM user_passwords WHERE user_id = '{ADA}'") == []


OWN_TABLES = "('users', 'user_passwords', 'orders', 'order_items', 'events', 'request_ids', 'signing_keys')"
CONSTRAINTS = f"""
SELECT conname AS name, contype::text AS type, conrelid::regclass::text AS table,
    coalesce(confrelid, 0)::regclass::text AS referred,
    (SELECT string_agg(attname, '_' ORDER BY place) FROM unnest(conkey) WITH ORDINALITY AS key (number, place)
        JOIN pg_attribute ON attrelid = conrelid AND attnum = number) AS columns
FROM pg_constraint
WHERE conrelid::regclass::text IN {OWN_TABLES} AND contype <> 'n'
UNION ALL
SELECT relname, 'x', indrelid::regclass::text, NULL, NULL
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid::regclass::text IN {OWN_TABLES} AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""


async def test_no_table_is_left_out_here(connection: asyncpg.Connection) -> None:
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in tables} - {"alembic_version"} == set(re.findall(r"\w+", OWN_TABLES))


async def test_every_constraint_is_tried_here(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(CONSTRAINTS)
    names = {row["name"] for row in rows if row["type"] != "x" or row["name"].startswith("uq_")}
    assert names == {case.constraint for case in CASES}


async def test_every_constraint_and_index_is_named_by_the_convention(connection: asyncpg.Connection) -> None:
    for row in await connection.fetch(CONSTRAINTS):
        table, columns = row["table"], row["columns"]
        pattern = {
            "p": f"pk_{table}",
            "u": f"uq_{table}_{columns}",
            "f": f"fk_{table}_{columns}_{row['referred']}",
            "c": rf"ck_{table}_\w+",
            "t": r"\w+",
            "x": rf"(ix|uq)_{table}_\w+",
        }[row["type"]]
        assert re.fullmatch(pattern, row["name"]), dict(row)


async def test_every_foreign_key_has_an_index_that_begins_with_its_columns(connection: asyncpg.Connection) -> None:
    without = """
    SELECT conname FROM pg_constraint WHERE contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = conrelid AND indpred IS NULL
        AND (indkey::int2[])[0:cardinality(conkey) - 1] = conkey)
    """
    assert await connection.fetch(without) == []
    assert await connection.fetchval("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") >= 3


async def test_only_what_can_be_unknown_can_be_null(connection: asyncpg.Connection) -> None:
    nullable = f"""
    SELECT attrelid::regclass || '.' || attname AS name FROM pg_attribute
    WHERE attrelid::regclass::text IN {OWN_TABLES} AND attnum > 0 AND NOT attisdropped AND NOT attnotnull
    """
    assert {row["name"] for row in await connection.fetch(nullable)} == {
        "users.undelete_state",
        "users.delete_time",
        "users.purge_time",
        "orders.external_ref",
        "orders.tracking_number",
        "orders.cancel_reason",
        "request_ids.response",
    }
