# ruff: noqa: RUF001 - people write all of these characters
"""Databases with other locales and encodings than that of the tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from commerce.users.v1.user_pb2 import UserProfile
from grpc import StatusCode

from service.config import DatabaseSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations import migrate
from service.db.operations.readiness import readiness_problem
from service.domain.search import words_of
from tests.support.clients import Clients
from tests.support.databases import driver_connection, drop_database
from tests.support.failures import fails
from tests.support.passwords import PASSWORD
from tests.support.processes import run_command
from tests.support.servers import serving_clients

# With these rules, the lower case of I is a dotless i. A PostgreSQL has ICU, or the operating system has the locale.
TURKISH = (
    "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'",
    "ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'tr_TR.UTF-8'",
)
EMAIL = "INFO.I@EXAMPLE.COM"
# Each has an idea of its own about letters and cases.
LOCALES: dict[str, tuple[str, ...]] = {
    "turkish": TURKISH,
    "C": ("ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'",),
    "C.UTF-8 of the system": ("ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8'",),
    "C.UTF-8 of PostgreSQL": ("ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",),
    "of Unicode": (
        "ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST' LOCALE 'C'",
        "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C'",
    ),
}
# Names, and queries that find them.
NAMES = {
    "Anne D’Angelo": ["angelo", "d'angelo", "ANNE D’ANGELO", "d ange"],
    "André Éluard": ["andre\u0301", "ANDRÉ", "andre", "éluard", "ÉLU", "eluard andre"],
    "INFO Straße": ["info", "strasse", "STRASSE", "straß"],
    "Łukasz Ὀδυσσεύς": ["lukasz", "łukasz", "ΟΔΥΣΣΕΥΣ"],
}
# In these, every part is found.
BODY = "See kite.shop/p17, ask bob.smith@example.com about ORD-00000042 – “DÉJÀ VU”."
PARTS = ["kite", "p17", "kite.shop/p17", "Bob", "bob.smith@example.com", "00000042", "ord-00000042", "de\u0301ja vu"]


@asynccontextmanager
async def created(postgres_url: str, *options: str) -> AsyncIterator[str]:
    """Create an empty database with the first options that work, and drop it when the block ends; yields its URL."""
    name = f"test_{uuid4().hex[:12]}"
    async with driver_connection(postgres_url) as connection:
        for some in options:
            with suppress(asyncpg.FeatureNotSupportedError, asyncpg.WrongObjectTypeError):
                await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {some}")
                break
        else:
            pytest.skip("this PostgreSQL does not have the locale")
    try:
        yield async_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    finally:
        await drop_database(postgres_url, name)


async def upgrade(url: str, revision: str = "head") -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        await migrate.upgrade(engine, revision)
    finally:
        await engine.dispose()


async def import_row(clients: Clients, row: UserImportRow, on_conflict: str) -> pb.ImportUsersResponse:
    mode = UserImportOnConflict.Value(f"USER_IMPORT_ON_CONFLICT_{on_conflict}")
    requests = [
        pb.ImportUsersRequest(config=UserImportConfig(on_conflict=mode)),
        pb.ImportUsersRequest(row=row),
    ]
    response: pb.ImportUsersResponse = await clients.users.ImportUsers(iter(requests))
    return response


async def test_an_email_is_one_in_any_case_in_a_turkish_database(postgres_url: str) -> None:
    async with created(postgres_url, *TURKISH) as url:
        await upgrade(url)
        async with serving_clients(url) as clients, driver_connection(url) as connection:
            assert await connection.fetchval("SELECT lower('I')") != "i"
            user = await clients.create_user(email=EMAIL)
            with fails(StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS") as failure:
                await clients.create_user(email=EMAIL.lower())
            assert failure.metadata == {"field": "email"}
            for written in (EMAIL, EMAIL.lower(), EMAIL.title()):
                found = (await clients.users.GetUser(pb.GetUserRequest(email=written))).user
                assert found == user
                request = pb.VerifyPasswordRequest(email=written, password=PASSWORD)
                assert (await clients.users.VerifyPassword(request)).user == user
            row = UserImportRow(email=EMAIL.lower(), username="another", superuser=True, password=PASSWORD)
            assert (await import_row(clients, row, "SKIP")).skipped_count == 1
            row.username = user.username
            assert (await import_row(clients, row, "UPDATE")).updated_count == 1
            changed = (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user
            assert (changed.superuser, changed.email) == (True, EMAIL)
            assert await connection.fetchval("SELECT count(*) FROM users") == 1


@pytest.mark.parametrize("locale", LOCALES)
async def test_searches_find_the_same_in_every_locale(postgres_url: str, locale: str) -> None:
    async with created(postgres_url, *LOCALES[locale]) as url:
        await upgrade(url)
        async with serving_clients(url) as clients:
            users = {name: await clients.create_user(full_name=name, profile=UserProfile(bio="…")) for name in NAMES}
            for name, queries in NAMES.items():
                for query in queries:
                    found = await clients.users.SearchUsers(pb.SearchUsersRequest(query=query))
                    assert [result.user for result in found.results] == [users[name]], query
            author = users["INFO Straße"]
            order = await clients.create_order(author.id)
            note = OrderNote(order_id=order.id, author_id=author.id, body=BODY)
            await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))
            for query in PARTS:
                request = orders_pb.SearchOrderNotesRequest(query=query, include_drafts=True)
                (match,) = (await clients.orders.SearchOrderNotes(request)).matches
                assert match.snippet.count("**") == 2 * len(words_of(query)), query


async def test_a_migration_refuses_two_users_with_one_email_and_names_them(postgres_url: str) -> None:
    async with created(postgres_url, *TURKISH) as url:
        await upgrade(url, "0016")
        async with driver_connection(url) as connection:
            for email, name in ((EMAIL, "one"), (EMAIL.lower(), "two"), ("ada@example.com", "ada")):
                await connection.execute(
                    "INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time,"
                    " update_time) VALUES (gen_random_uuid(), $1, $2, '', false, 'ACTIVE', 1, now(), now())",
                    email,
                    name,
                )
            rows: list[Any] = await connection.fetch("SELECT id, username FROM users ORDER BY username")
            ids = {row["username"]: str(row["id"]) for row in rows}
            ran = await run_command("migrate", database_url=url)
            assert (ran.status, ran.stdout) == (1, "")
            assert ran.stderr.startswith("Error: users have the same e-mail address in upper and lower case")
            assert ran.stderr.count("\n") == 1
            assert (ids["one"] in ran.stderr, ids["two"] in ran.stderr, ids["ada"] in ran.stderr) == (True, True, False)
            assert EMAIL not in ran.stderr.upper()
            await connection.execute("UPDATE users SET email = 'other@example.com' WHERE username = 'two'")
        await upgrade(url)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_with_another_encoding_is_refused(postgres_url: str, encoding: str) -> None:
    async with created(postgres_url, f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'") as url:
        with pytest.raises(migrate.MigrationError, match=f"has the encoding {encoding}.*ENCODING 'UTF8'"):
            await upgrade(url)
        engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
        problem = await readiness_problem(engine)
        await engine.dispose()
        assert problem is not None
        assert problem.startswith(f"the database has the encoding {encoding}")
        for command in ("migrate", "serve"):
            ran = await run_command(command, database_url=url)
            assert (ran.status, ran.stderr) == (1, f"Error: {problem}\n")
