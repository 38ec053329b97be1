# ruff: noqa: RUF001 - people write all of these characters
"""Words for searches, as the service writes them and as the triggers do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import pytest
from commerce.orders.v1.note_pb2 import OrderNote as OrderNoteMessage
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from commerce.users.v1.user_pb2 import User as UserMessage
from commerce.users.v1.user_pb2 import UserProfile
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.application.maintenance import backfill_search_words
from service.application.ports.unit_of_work import UnitOfWork
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.database import Database
from service.db.operations import migrate
from service.db.text_search import note_vector, notes_query, user_vector, users_query
from service.domain.notes import OrderNote
from service.domain.search import MAX_WORD_LENGTH, NoteQuery, SearchQuery, without_accents, words_of
from service.domain.users import User
from service.server import MESSAGE_ENCODERS
from tests.support.databases import cloned, driver_connection
from tests.support.locks import holding
from tests.support.servers import OwnServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# PostgreSQL stores no zero byte, and UTF-8 no half of a surrogate pair.
characters = st.characters(min_codepoint=1, exclude_categories=["Cs"])


@pytest.fixture
async def connection(own: OwnServer) -> AsyncIterator[asyncpg.Connection]:
    async with driver_connection(own.database_url) as connection:
        yield connection


@pytest.fixture(scope="module")
async def reading(postgres_url: str, template_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with cloned(postgres_url, template_url) as url, driver_connection(url) as connection:
        yield connection


def note_of(body: str) -> OrderNote:
    return OrderNote.write(uuid4(), uuid4(), body, NOW)


def user_of(full_name: str, bio: str) -> User:
    fields = {"email": "a@example.com", "username": "ada.l-1_x", "full_name": full_name, "bio": bio}
    return User.create(fields, NOW)  # type: ignore[arg-type] # the fields are complete


@settings(deadline=None)
@given(st.text(characters, min_size=1, max_size=100), st.text(characters, max_size=100), st.data())
@example("ﷺ" * 4000, "x" * 3000, None)
@example("a " * 2000, "\U0001f98a" * 4000, None)
@example("\u0304x", "", None)
async def test_a_text_is_found_by_each_of_its_words(
    reading: asyncpg.Connection, body: str, more: str, data: st.DataObject | None
) -> None:
    words = words_of(f"{body} {more}")
    if not words:
        return
    vector = note_vector(note_of(f"{body} {more}"[:4000]))
    word = data.draw(st.sampled_from(words)) if data else words[0]
    beginning = word[: (data.draw(st.integers(1, len(word))) if data else 1)]
    for query in (word, without_accents(word), *([f"{words[0]} {words[1]}"] if len(words) > 1 else [])):
        for accents in {False, query == without_accents(query)}:
            wanted = notes_query(NoteQuery.parse(f'"{query}"', "query"), accents=accents)
            assert await reading.fetchval("SELECT $1::text::tsvector @@ $2::text::tsquery", vector, wanted), wanted
    # A query of accents or punctuation alone has no words.
    if any(map(str.isalnum, without_accents(beginning))):
        wanted = users_query(SearchQuery(beginning, (beginning,)), last_is_prefix=True, accents=False)
        assert await reading.fetchval("SELECT $1::text::tsvector @@ $2::text::tsquery", vector, wanted), wanted


ascii_texts = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=100)


@settings(deadline=None)
@given(ascii_texts, ascii_texts)
@example("1.5e10 -3 <b>&amp;</b> https://kite.shop/p17?x=1", "bob.smith@example.com AND/OR it's 'so' \\ 50%")
@example("x" * (MAX_WORD_LENGTH + 1), "a b " * 250)
async def test_triggers_find_the_words_of_a_text_in_ascii_as_the_service_does(
    reading: asyncpg.Connection, full_name: str, bio: str
) -> None:
    user = user_of(full_name if full_name.strip() else "", bio)
    same = "SELECT user_search($1, $2, $3) = $4::text::tsvector"
    assert await reading.fetchval(same, user.username, user.full_name, user.bio, user_vector(user))
    note = note_of(f"{full_name}.{bio}")
    assert await reading.fetchval("SELECT note_search($1) = $2::text::tsvector", note.body, note_vector(note))


@settings(deadline=None)
@given(st.text(characters, min_size=1, max_size=100))
@example("ﷺ" * 4000)
@example("é" * 4000)
async def test_triggers_accept_any_text_and_mark_what_is_not_ascii(reading: asyncpg.Connection, body: str) -> None:
    is_marked = await reading.fetchval("SELECT note_search($1) @@ '~'::tsquery", body)
    assert is_marked is not body.isascii()


async def stale(connection: asyncpg.Connection) -> set[UUID]:
    """Return the ids of users and notes whose words are not those of their texts."""
    users = await connection.fetch(
        "SELECT id, username, full_name, coalesce(bio, '') AS bio FROM users LEFT JOIN user_profiles ON user_id = id"
    )
    notes = await connection.fetch("SELECT id, body FROM order_notes")
    vectors = {
        "users": {row["id"]: _vector_of_user(row) for row in users},
        "order_notes": {row["id"]: note_vector(note_of(row["body"])) for row in notes},
    }
    found = set[UUID]()
    for table, of_rows in vectors.items():
        for row_id, vector in of_rows.items():
            query = f"SELECT search = $2::text::tsvector FROM {table} WHERE id = $1"
            if not await connection.fetchval(query, row_id, vector):
                found.add(row_id)
    return found


def _vector_of_user(row: asyncpg.Record) -> str:
    user = user_of(row["full_name"], row["bio"])
    user.username = row["username"]
    return user_vector(user)


async def created(own: OwnServer) -> UserMessage:
    return await own.clients.create_user(full_name="Ada Éluard", profile=UserProfile(bio="Ça va, D’Angelo?"))


async def renamed(own: OwnServer) -> None:
    user = await created(own)
    for name in ("ADA ÉLUARD", "André"):
        changed = UserMessage(id=user.id, full_name=name)
        await own.clients.users.UpdateUser(pb.UpdateUserRequest(user=changed))


async def with_another_bio(own: OwnServer) -> None:
    user = await created(own)
    for bio in ("ÇA VA, D’ANGELO?", "Voilà"):
        changed = UserMessage(id=user.id, profile=UserProfile(bio=bio))
        await own.clients.users.UpdateUser(pb.UpdateUserRequest(user=changed))


async def without_a_bio(own: OwnServer) -> None:
    user = UserMessage(id=(await created(own)).id)
    request = pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=["profile"]))
    await own.clients.users.UpdateUser(request)


async def deactivated(own: OwnServer) -> None:
    user = await created(own)
    await own.clients.users.DeactivateUser(pb.DeactivateUserRequest(id=user.id))
    await own.clients.users.DeleteUser(pb.DeleteUserRequest(id=user.id))


async def imported(own: OwnServer) -> None:
    user = await created(own)
    rows = [
        UserImportRow(email=user.email, username=user.username, full_name="Zoë", profile=UserProfile(bio="Ñandú")),
        UserImportRow(email="new@example.com", username="new", full_name="Zoë", profile=UserProfile(bio="Ñandú")),
    ]
    config = UserImportConfig(on_conflict=UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UPDATE)
    requests = [pb.ImportUsersRequest(config=config), *(pb.ImportUsersRequest(row=row) for row in rows)]
    response = await own.clients.users.ImportUsers(iter(requests))
    assert (response.created_count, response.updated_count) == (1, 1)


async def written_about(own: OwnServer) -> OrderNoteMessage:
    author = await own.clients.create_user()
    order = await own.clients.create_order(author.id)
    note = OrderNoteMessage(order_id=order.id, author_id=author.id, body="Fragile – “DÉJÀ VU” kite.shop/p17")
    return (await own.clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))).note


async def rewritten(own: OwnServer) -> None:
    note = await written_about(own)
    await own.clients.orders.PublishOrderNote(orders_pb.PublishOrderNoteRequest(id=note.id))
    for body in (note.body.lower(), "Voilà"):
        changed = OrderNoteMessage(id=note.id, body=body)
        await own.clients.orders.UpdateOrderNote(orders_pb.UpdateOrderNoteRequest(note=changed))


@pytest.mark.parametrize(
    "write",
    [created, renamed, with_another_bio, without_a_bio, deactivated, imported, written_about, rewritten],
)
async def test_every_write_of_the_service_writes_the_words(
    own: OwnServer, connection: asyncpg.Connection, write: Callable[[OwnServer], Awaitable[object]]
) -> None:
    await write(own)
    assert await stale(connection) == set()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET full_name = 'Zoe Ångström'",
        "UPDATE users SET username = 'angelo.' || username",
        "UPDATE user_profiles SET bio = 'Voilà'",
        "DELETE FROM user_profiles",
        "UPDATE order_notes SET body = 'Voilà'",
    ],
)
async def test_what_others_write_is_found_and_gc_replaces_their_words(
    own: OwnServer, connection: asyncpg.Connection, change: str
) -> None:
    await created(own)
    await written_about(own)
    await connection.execute(change)
    before = await connection.fetch("SELECT id, search FROM users UNION ALL SELECT id, search FROM order_notes")
    wrong = {row["id"] for row in before if "'~'" in row["search"]}
    assert await stale(connection) == wrong
    versions = "SELECT id, version FROM users UNION ALL SELECT id, version FROM order_notes"
    stored = set(await connection.fetch(versions))
    assert await backfilled(own) == len(wrong)
    assert await stale(connection) == set()
    assert await backfilled(own) == 0
    assert set(await connection.fetch(versions)) == stored


async def test_gc_leaves_what_others_have_locked_for_the_next_run(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    user, note = await created(own), await written_about(own)
    await connection.execute("UPDATE users SET full_name = 'é'")
    await connection.execute("UPDATE order_notes SET body = 'é'")
    lock_user, lock_note = (f"SELECT FROM {table} WHERE id = $1 FOR UPDATE" for table in ("users", "order_notes"))
    async with holding(own.database_url, lock_user, user.id), holding(own.database_url, lock_note, note.id):
        await backfilled(own)
        assert await stale(connection) == {UUID(user.id), UUID(note.id)}
    assert await backfilled(own) == 2


async def backfilled(own: OwnServer) -> int:
    database = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), MESSAGE_ENCODERS)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return database.unit_of_work(actor="gc", request=None, time_left=lambda: 10)

    try:
        return await backfill_search_words(unit_of_work)
    finally:
        await database.close()


async def test_the_words_of_existing_texts_are_replaced_by_the_migration(empty_database_url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=empty_database_url), pool_size=1)
    users = """
        SET session_replication_role = replica;
        INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time, search)
        SELECT gen_random_uuid(), n || '@a.example', 'name.' || n,
            CASE n % 2 WHEN 0 THEN 'Anne D’Angelo' ELSE 'Ada' END, false, 'ACTIVE', 1, now(), now(), 'stale'
        FROM generate_series(1, 2500) n;
        INSERT INTO user_profiles SELECT id, 'engines', '' FROM users;
        INSERT INTO order_notes (id, order_id, author_id, body, state, version, create_time, update_time)
        SELECT gen_random_uuid(), id, id, 'kite.shop/p17 – ' || username, 'DRAFT', 1, now(), now() FROM users;
    """
    try:
        await migrate.upgrade(engine, "0018")
        async with driver_connection(empty_database_url) as connection:
            await connection.execute(users)
            await connection.execute("SET session_replication_role = DEFAULT")
            await migrate.upgrade(engine)
            for table, query, count in (
                ("users", "'angelo'", 1250),
                ("users", "'ada' & 'engines'", 1250),
                ("order_notes", "'kite' <-> 'shop' <-> 'p17'", 2500),
            ):
                matches = f"SELECT count(*) FROM {table} WHERE search @@ $1::text::tsquery"
                assert await connection.fetchval(matches, query) == count
    finally:
        await engine.dispose()
