"""Constraints of the database, which hold for every program that writes."""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest

from tests.support.databases import driver_connection

ADA = "00000000-0000-7000-8000-00000000000a"
GRACE = "00000000-0000-7000-8000-00000000000b"
ORDER = "00000000-0000-7000-8000-00000000000c"
OTHER_ORDER = "00000000-0000-7000-8000-00000000000d"
ITEM = "00000000-0000-7000-8000-00000000000e"
EVENT = "00000000-0000-7000-8000-00000000000f"
JOAN = "00000000-0000-7000-8000-000000000010"
TAG = "00000000-0000-7000-8000-000000000011"
OTHER_TAG = "00000000-0000-7000-8000-000000000012"
NOTE = "00000000-0000-7000-8000-000000000013"
OTHER_NOTE = "00000000-0000-7000-8000-000000000014"
ENTRY = "00000000-0000-7000-8000-000000000015"
OTHER_ENTRY = "00000000-0000-7000-8000-000000000016"
TRANSACTION = "00000000-0000-7000-8000-000000000017"
NOBODY = "00000000-0000-7000-8000-000000000000"

ENTRY_COLUMNS = """
credit_entries (id, transaction_id, user_id, account, type, currency, amount, balance_after, description, actor,
    create_time)
"""
NOTE_COLUMNS = "order_notes (id, order_id, author_id, body, state, version, create_time, update_time)"
# Ada has orders, Joan has credit and has written notes; Grace has nothing that prevents her deletion.

VALID_ROWS = f"""
INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time) VALUES
    ('{ADA}', 'constrained.ada@example.com', 'constrained.ada', 'Ada', false, 'ACTIVE', 1, now(), now()),
    ('{GRACE}', 'constrained.grace@example.com', 'constrained.grace', 'Grace', false, 'ACTIVE', 1, now(), now()),
    ('{JOAN}', 'constrained.joan@example.com', 'constrained.joan', 'Joan', false, 'ACTIVE', 1, now(), now());
INSERT INTO user_passwords VALUES ('{ADA}', '$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA', now());
INSERT INTO user_profiles VALUES ('{ADA}', 'Counts.', '');
INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, external_ref, metadata, version,
        create_time, update_time) VALUES
    ('{ORDER}', 'CON-1', '{ADA}', 'PENDING', 'EUR', 21, 'one', '{{}}', 1, now(), now()),
    ('{OTHER_ORDER}', 'CON-2', '{ADA}', 'PENDING', 'EUR', 5, 'two', '{{}}', 1, now(), now());
INSERT INTO order_items VALUES
    ('{ORDER}', '{ITEM}', 'anvil', 'Anvil', 2, 10.5, 21),
    ('{OTHER_ORDER}', '{ITEM}', 'bolt', 'Bolt', 1, 5, 5);
INSERT INTO tags VALUES ('{TAG}', 'constrained.tag'), ('{OTHER_TAG}', 'constrained.other');
INSERT INTO order_tags VALUES ('{ORDER}', '{TAG}');
INSERT INTO {NOTE_COLUMNS} VALUES
    ('{NOTE}', '{ORDER}', '{JOAN}', 'Heavy.', 'DRAFT', 1, now(), now()),
    ('{OTHER_NOTE}', '{ORDER}', '{JOAN}', 'Very.', 'DRAFT', 1, now(), now());
INSERT INTO credit_accounts VALUES ('{JOAN}', 'EUR', 10, 0);
INSERT INTO {ENTRY_COLUMNS} VALUES
    ('{ENTRY}', '{TRANSACTION}', '{JOAN}', 'AVAILABLE', 'GRANT', 'EUR', 10, 10, '', 'anonymous', now()),
    ('{OTHER_ENTRY}', '{TRANSACTION}', NULL, 'ISSUED', 'GRANT', 'EUR', -10, NULL, '', 'anonymous', now());
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes) VALUES
    ('{EVENT}', 'order', '{ORDER}', 'CREATED', 'anonymous', now(), '[]');
INSERT INTO request_ids (caller, method, request_id, body_digest, response) VALUES
    ('anonymous', '/method', '{EVENT}', '', '');
INSERT INTO sign_in_attempts VALUES (0, 1, now(), now());
INSERT INTO relay_cursors (name, xid, position) VALUES ('constrained', '0', 0);
INSERT INTO maintenance_runs VALUES ('constrained', 1, 0, 1, now());
SET CONSTRAINTS ALL IMMEDIATE;
"""


@pytest.fixture
async def connection(shared_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that is never committed, in which there is one good row of each kind."""
    async with driver_connection(shared_database_url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(VALID_ROWS)
        # Deferred again, as in the service.
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


def profiles(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE user_profiles SET {change} WHERE user_id = '{ADA}'") for change in changes]


def orders(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE orders SET {change} WHERE id = '{ORDER}'") for change in changes]


def items(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE order_items SET {change} WHERE order_id = '{ORDER}'") for change in changes]


def tags(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE tags SET {change} WHERE id = '{TAG}'") for change in changes]


def order_tags(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE order_tags SET {change} WHERE order_id = '{ORDER}'") for change in changes]


def notes(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE order_notes SET {change} WHERE id = '{NOTE}'") for change in changes]


def accounts(constraint: str, *changes: str) -> list[Case]:
    return [Case(constraint, f"UPDATE credit_accounts SET {change} WHERE user_id = '{JOAN}'") for change in changes]


def entries(*rows: str) -> str:
    """The statements that insert entries of one transaction, as they cannot be updated.

    A row is: user, account, type, currency, amount, balance after, description.
    """
    return "; ".join(
        f"INSERT INTO {ENTRY_COLUMNS} SELECT gen_random_uuid(), '{NOBODY}', row.*, 'anonymous', now()"
        f" FROM (SELECT {row}) AS row"
        for row in rows
    )


def kept(constraint: str, statement: str) -> Case:
    """A user that could be deleted if the statement did not refer to it."""
    return Case(constraint, f"{statement}; DELETE FROM users WHERE id = '{GRACE}'")


EVENT_COLUMNS = "events (id, aggregate_type, aggregate_id, type, actor, create_time, changes)"
# An order of the same user, for the same amount, without items.
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
    Case(
        "uq_users_email_folded",
        f"DROP INDEX uq_users_email; UPDATE users SET email = 'Constrained.GRACE@example.com' WHERE id = '{ADA}'",
    ),
    *users("uq_users_username", "username = 'constrained.grace'"),
    *users("pk_users", f"id = '{GRACE}'"),
    *passwords("ck_user_passwords_password_hash", "password_hash = 'secret'", "password_hash = '$argon2i$v=19$'"),
    *passwords("fk_user_passwords_user_id_users", f"user_id = '{NOBODY}'"),
    Case("ck_sign_in_attempts_slot", "UPDATE sign_in_attempts SET slot = -1 WHERE slot = 0"),
    Case("ck_sign_in_attempts_slot", "UPDATE sign_in_attempts SET slot = 1 << 22 WHERE slot = 0"),
    Case("ck_sign_in_attempts_attempts", "UPDATE sign_in_attempts SET attempts = -1 WHERE slot = 0"),
    Case("pk_sign_in_attempts", "INSERT INTO sign_in_attempts VALUES (0, 1, now(), now())"),
    Case("pk_user_passwords", f"INSERT INTO user_passwords SELECT * FROM user_passwords WHERE user_id = '{ADA}'"),
    *profiles("ck_user_profiles_bio", f"bio = {LONG.format(1001)}"),
    *profiles("ck_user_profiles_avatar_url", f"avatar_url = {LONG.format(2001)}"),
    *profiles("fk_user_profiles_user_id_users", f"user_id = '{NOBODY}'"),
    Case("pk_user_profiles", f"INSERT INTO user_profiles SELECT * FROM user_profiles WHERE user_id = '{ADA}'"),
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
    *orders(
        "ck_orders_credit",
        f"credit_user_id = '{JOAN}'",
        "credit_expire_time = now()",
        "credit_state = 'POSTED'",
        "credit_state = 'HELD', credit_expire_time = now()",
        f"credit_state = 'HELD', credit_user_id = '{JOAN}'",
        f"credit_state = 'POSTED', credit_user_id = '{JOAN}', credit_expire_time = now()",
        f"credit_state = 'LOST', credit_user_id = '{JOAN}'",
        f"credit_state = 'posted', credit_user_id = '{JOAN}'",
    ),
    *orders("ck_orders_version", "version = 0"),
    *orders("ck_orders_update_time", "update_time = create_time - interval '1 microsecond'"),
    *orders("uq_orders_order_number", "order_number = 'CON-2'"),
    *orders("uq_orders_user_id_external_ref", "external_ref = 'two'"),
    *orders("pk_orders", f"id = '{OTHER_ORDER}'"),
    *orders("fk_orders_user_id_users", f"user_id = '{NOBODY}'"),
    Case("fk_orders_user_id_users", f"DELETE FROM users WHERE id = '{ADA}'"),
    *orders("fk_orders_credit_user_id_users", f"credit_state = 'POSTED', credit_user_id = '{NOBODY}'"),
    kept(
        "fk_orders_credit_user_id_users",
        f"UPDATE orders SET credit_state = 'POSTED', credit_user_id = '{GRACE}' WHERE id = '{ORDER}'",
    ),
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
    *tags("ck_tags_name", "name = ''", f"name = {LONG.format(51)}"),
    *tags("uq_tags_name", "name = 'constrained.other'"),
    *tags("pk_tags", f"id = '{OTHER_TAG}'"),
    *order_tags("fk_order_tags_order_id_orders", f"order_id = '{NOBODY}'"),
    *order_tags("fk_order_tags_tag_id_tags", f"tag_id = '{NOBODY}'"),
    Case("fk_order_tags_tag_id_tags", f"DELETE FROM tags WHERE id = '{TAG}'"),
    Case("pk_order_tags", f"INSERT INTO order_tags SELECT * FROM order_tags WHERE order_id = '{ORDER}'"),
    *notes("ck_order_notes_body", "body = ''", f"body = {LONG.format(4001)}"),
    *notes("ck_order_notes_state", "state = 'LOST'", "state = 'draft'"),
    *notes("ck_order_notes_publish_time", "publish_time = now()", "state = 'PUBLISHED'"),
    *notes("ck_order_notes_version", "version = 0"),
    *notes("ck_order_notes_update_time", "update_time = create_time - interval '1 microsecond'"),
    *notes("pk_order_notes", f"id = '{OTHER_NOTE}'"),
    *notes("fk_order_notes_order_id_orders", f"order_id = '{NOBODY}'"),
    *notes("fk_order_notes_author_id_users", f"author_id = '{NOBODY}'"),
    kept("fk_order_notes_author_id_users", f"UPDATE order_notes SET author_id = '{GRACE}' WHERE id = '{NOTE}'"),
    *accounts("ck_credit_accounts_currency", "currency = 'eur'", "currency = 'EURO'", "currency = ''"),
    *accounts("ck_credit_accounts_available", "available = -0.0001"),
    *accounts("ck_credit_accounts_held", "held = -0.0001"),
    *accounts("fk_credit_accounts_user_id_users", f"user_id = '{NOBODY}'"),
    kept("fk_credit_accounts_user_id_users", f"INSERT INTO credit_accounts VALUES ('{GRACE}', 'EUR', 0, 0)"),
    Case("pk_credit_accounts", f"INSERT INTO credit_accounts SELECT * FROM credit_accounts WHERE user_id = '{JOAN}'"),
    Case("ck_credit_entries_type", entries("NULL::uuid, 'ISSUED', 'GIFT', 'EUR', 1, NULL::numeric, ''")),
    Case("ck_credit_entries_type", entries("NULL::uuid, 'ISSUED', 'grant', 'EUR', 1, NULL::numeric, ''")),
    Case("ck_credit_entries_amount", entries("NULL::uuid, 'ISSUED', 'GRANT', 'EUR', 0, NULL::numeric, ''")),
    Case("ck_credit_entries_balance_after", entries(f"'{JOAN}'::uuid, 'HELD', 'VOID', 'EUR', -1, -0.0001, ''")),
    Case("ck_credit_entries_account", entries("NULL::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, NULL::numeric, ''")),
    Case("ck_credit_entries_account", entries("NULL::uuid, 'ISSUED', 'GRANT', 'EUR', 1, 1, ''")),
    Case("ck_credit_entries_account", entries("NULL::uuid, 'issued', 'GRANT', 'EUR', 1, NULL::numeric, ''")),
    Case("ck_credit_entries_account", entries(f"'{JOAN}'::uuid, 'SPENT', 'GRANT', 'EUR', 1, 1, ''")),
    Case("ck_credit_entries_account", entries(f"'{JOAN}'::uuid, 'HELD', 'HOLD', 'EUR', 1, NULL::numeric, ''")),
    Case(
        "ck_credit_entries_description",
        entries(f"NULL::uuid, 'ISSUED', 'GRANT', 'EUR', 1, NULL::numeric, {LONG.format(201)}"),
    ),
    Case("fk_credit_entries_user_id_users", entries(f"'{NOBODY}'::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, 1, ''")),
    kept("fk_credit_entries_user_id_users", entries(f"'{GRACE}'::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, 1, ''")),
    Case("credit_balanced", entries(f"'{JOAN}'::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, 11, ''")),
    Case(
        "credit_balanced",
        entries(
            f"'{JOAN}'::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, 11, ''",
            "NULL::uuid, 'ISSUED', 'GRANT', 'EUR', -1.0001, NULL::numeric, ''",
        ),
    ),
    # Amounts in another currency do not balance it.
    Case(
        "credit_balanced",
        entries(
            f"'{JOAN}'::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, 11, ''",
            "NULL::uuid, 'ISSUED', 'GRANT', 'USD', -1, NULL::numeric, ''",
        ),
    ),
    # Entries of another transaction do not balance it.
    Case(
        "credit_balanced",
        f"""
        INSERT INTO {ENTRY_COLUMNS} VALUES
            ('{ADA}', '{ADA}', '{JOAN}', 'AVAILABLE', 'GRANT', 'EUR', 1, 11, '', '', now()),
            ('{GRACE}', '{GRACE}', NULL, 'ISSUED', 'GRANT', 'EUR', -1, NULL, '', '', now())
        """,
    ),
    Case(
        "uq_credit_entries_id",
        f"""
        INSERT INTO {ENTRY_COLUMNS}
        VALUES ('{ENTRY}', '{NOBODY}', NULL, 'ISSUED', 'GRANT', 'EUR', 1, NULL, '', '', now())
        """,
    ),
    Case(
        "pk_credit_entries",
        f"INSERT INTO credit_entries OVERRIDING SYSTEM VALUE SELECT * FROM credit_entries WHERE id = '{ENTRY}'",
    ),
    Case(
        "ck_events_aggregate_type", f"INSERT INTO {EVENT_COLUMNS} VALUES ('{ADA}', 'cat', '{ADA}', '', '', now(), '[]')"
    ),
    Case("ck_events_changes", f"INSERT INTO {EVENT_COLUMNS} VALUES ('{ADA}', 'user', '{ADA}', '', '', now(), '{{}}')"),
    Case("uq_events_id", f"INSERT INTO {EVENT_COLUMNS} VALUES ('{EVENT}', 'user', '{ADA}', '', '', now(), '[]')"),
    Case("pk_events", f"INSERT INTO events OVERRIDING SYSTEM VALUE SELECT * FROM events WHERE id = '{EVENT}'"),
    Case("ck_swept_events_one_row", "INSERT INTO swept_events SELECT 2, xid, position FROM swept_events"),
    Case("pk_swept_events", "INSERT INTO swept_events SELECT * FROM swept_events"),
    Case(
        "pk_maintenance_runs",
        "INSERT INTO maintenance_runs SELECT * FROM maintenance_runs WHERE part = 'constrained'",
    ),
    Case("pk_relay_cursors", "INSERT INTO relay_cursors SELECT * FROM relay_cursors WHERE name = 'constrained'"),
    Case("pk_request_ids", f"INSERT INTO request_ids SELECT * FROM request_ids WHERE request_id = '{EVENT}'"),
    Case("ck_signing_keys_one_row", "INSERT INTO signing_keys SELECT 2, key FROM signing_keys"),
    Case("ck_signing_keys_key", "UPDATE signing_keys SET key = 'short'"),
    Case("pk_signing_keys", "INSERT INTO signing_keys SELECT * FROM signing_keys"),
]


def case_id(case: Case) -> str:
    return f"{case.constraint}: {' '.join(case.statement.split())[:60]}"


async def assert_refused(connection: asyncpg.Connection, case: Case) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as raised:
        # Checks that would run at COMMIT run now.
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
    *orders("none", f"credit_state = 'HELD', credit_user_id = '{JOAN}', credit_expire_time = now()"),
    *orders("none", f"credit_state = 'EXPIRED', credit_user_id = '{JOAN}'"),
    *profiles("none", "bio = ''", f"bio = {LONG.format(1000)}, avatar_url = {LONG.format(2000)}"),
    *tags("none", f"name = {LONG.format(50)}", "name = 'Constrained.OTHER'"),
    *notes("none", "state = 'PUBLISHED', publish_time = now()", f"body = {LONG.format(4000)}"),
    *accounts("none", "available = 0, held = 10"),
    Case(
        "none",
        entries(
            f"'{JOAN}'::uuid, 'AVAILABLE', 'HOLD', 'EUR', -10, 0, {LONG.format(200)}",
            f"'{JOAN}'::uuid, 'HELD', 'HOLD', 'EUR', 10, 10, ''",
        ),
    ),
    # A purge deletes the rows that belong only to the user.
    Case("none", f"DELETE FROM credit_entries WHERE transaction_id = '{TRANSACTION}'"),
    Case("none", f"DELETE FROM tags WHERE id = '{OTHER_TAG}'"),
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


async def test_a_balance_is_checked_when_the_transaction_commits(database_url: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute(VALID_ROWS)
        with pytest.raises(asyncpg.CheckViolationError) as raised:
            async with connection.transaction():
                await connection.execute(entries(f"'{JOAN}'::uuid, 'AVAILABLE', 'GRANT', 'EUR', 1, 11, ''"))
        assert raised.value.constraint_name == "credit_balanced"
        assert await connection.fetchval("SELECT count(*) FROM credit_entries") == 2


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE events SET actor = 'me' WHERE id = '{EVENT}'",
        "UPDATE events SET actor = 'me' WHERE false",
        f"UPDATE credit_entries SET actor = 'me' WHERE id = '{ENTRY}'",
        "UPDATE credit_entries SET actor = 'me' WHERE false",
    ],
)
async def test_events_and_entries_are_not_changed(connection: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await connection.execute(statement)


@pytest.mark.parametrize("table", ["events", "credit_entries"])
async def test_positions_are_not_chosen(connection: asyncpg.Connection, table: str) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await connection.execute(f"INSERT INTO {table} SELECT * FROM {table}")


async def test_a_tag_of_an_order_has_the_time_of_the_order_for_any_writer(connection: asyncpg.Connection) -> None:
    times = "SELECT orders.create_time, order_tags.create_time FROM order_tags JOIN orders ON id = order_id"
    ((of_order, of_tag),) = await connection.fetch(f"{times} WHERE order_id = '{ORDER}'")
    assert of_tag == of_order


async def test_deleting_a_user_or_an_order_deletes_the_rows_that_belong_only_to_it(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(f"DELETE FROM orders WHERE user_id = '{ADA}'; DELETE FROM users WHERE id = '{ADA}'")
    for table in ("order_items", "order_tags", "order_notes"):
        assert await connection.fetch(f"SELECT FROM {table} WHERE order_id IN ('{ORDER}', '{OTHER_ORDER}')") == [], (
            table
        )
    for table in ("user_passwords", "user_profiles"):
        assert await connection.fetch(f"SELECT FROM {table} WHERE user_id = '{ADA}'") == [], table


OWN_TABLES = """(
    'users', 'user_passwords', 'user_profiles', 'sign_in_attempts', 'orders', 'order_items', 'tags', 'order_tags',
    'order_notes',
    'credit_accounts', 'credit_entries', 'events', 'swept_events', 'relay_cursors', 'request_ids', 'signing_keys',
    'maintenance_runs'
)"""
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
    # A partial index WHERE the column IS NOT NULL is enough: rows with NULL refer to nothing, and the check of the
    # foreign key asks for `column = value`, which implies NOT NULL. Any other predicate may leave out rows that the
    # check must find.
    without = """
    SELECT conname FROM pg_constraint WHERE contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = conrelid
        AND (indkey::int2[])[0:cardinality(conkey) - 1] = conkey
        AND (indpred IS NULL OR pg_get_expr(indpred, indrelid) IN (
            SELECT format('(%I IS NOT NULL)', attname) FROM pg_attribute
            WHERE attrelid = conrelid AND attnum = ANY (conkey))))
    """
    assert await connection.fetch(without) == []
    assert await connection.fetchval("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") >= 11


async def test_only_optional_columns_are_nullable(connection: asyncpg.Connection) -> None:
    nullable = f"""
    SELECT attrelid::regclass || '.' || attname AS name FROM pg_attribute
    WHERE attrelid::regclass::text IN {OWN_TABLES} AND attnum > 0 AND NOT attisdropped AND NOT attnotnull
    """
    assert {row["name"] for row in await connection.fetch(nullable)} == {
        "users.undelete_state",
        "users.delete_time",
        "users.purge_time",
        "users.message",
        "orders.external_ref",
        "orders.tracking_number",
        "orders.cancel_reason",
        "maintenance_runs.success_time",
        "maintenance_runs.failure_time",
        "orders.credit_state",
        "orders.credit_user_id",
        "orders.credit_expire_time",
        "orders.message",
        "orders.items_message",
        "order_notes.publish_time",
        # Filled by triggers and defaults, never by the service.
        "users.search",
        "order_notes.search",
        "order_tags.create_time",
        "credit_entries.user_id",
        "credit_entries.balance_after",
        "credit_entries.order_id",
        "credit_entries.on_behalf_of",
        "events.user_id",
        "events.status",
        "events.on_behalf_of",
        "request_ids.response",
        "request_ids.resource_id",
        "request_ids.other_resource_id",
    }
