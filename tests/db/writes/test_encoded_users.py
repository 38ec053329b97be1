"""Encoded messages of users: each equals the user's columns, or is absent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import asyncpg
import commerce.users.v1.user_service_pb2 as pb
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from commerce.users.v1.user_pb2 import User, UserProfile
from google.protobuf.field_mask_pb2 import FieldMask

from service.application.maintenance import backfill_encoded_users
from service.application.ports.unit_of_work import UnitOfWork
from service.config import DatabaseSettings, load
from service.db.database import Database
from service.server import MESSAGE_ENCODERS
from tests.support.databases import driver_connection
from tests.support.encoded_users import encoded_users, stored_users
from tests.support.locks import holding
from tests.support.passwords import PASSWORD
from tests.support.requests import user_in
from tests.support.servers import OwnServer
from tests.support.waiting import eventually

LOCK_USER = "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE"
PROFILE = UserProfile(bio="Likes engines.", avatar_url="https://example.com/ada.png")


@pytest.fixture
async def connection(own: OwnServer) -> AsyncIterator[asyncpg.Connection]:
    async with driver_connection(own.database_url) as connection:
        yield connection


async def created(own: OwnServer) -> User:
    return await own.clients.create_user(full_name="", profile=PROFILE)


async def with_another_name_now(own: OwnServer) -> User:
    changed = User(id=(await created(own)).id, full_name="Ada Lovelace", superuser=True)
    return (await own.clients.users.UpdateUser(pb.UpdateUserRequest(user=changed))).user


async def with_another_bio_now(own: OwnServer) -> User:
    changed = User(id=(await created(own)).id)
    request = pb.UpdateUserRequest(user=changed, update_mask=FieldMask(paths=["profile.bio"]))
    return (await own.clients.users.UpdateUser(request)).user


async def with_another_password_now(own: OwnServer) -> User:
    request = pb.SetPasswordRequest(id=(await created(own)).id, password=f"{PASSWORD}2")
    return (await own.clients.users.SetPassword(request)).user


async def inactive(own: OwnServer) -> User:
    return await user_in(own.clients, "INACTIVE")


async def deleted(own: OwnServer) -> User:
    return await user_in(own.clients, "DELETED")


async def brought_back(own: OwnServer) -> User:
    request = pb.UndeleteUserRequest(id=(await deleted(own)).id)
    return (await own.clients.users.UndeleteUser(request)).user


async def imported(own: OwnServer, row: UserImportRow) -> User:
    update = UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UPDATE

    async def requests() -> AsyncIterator[pb.ImportUsersRequest]:
        yield pb.ImportUsersRequest(config=UserImportConfig(on_conflict=update))
        yield pb.ImportUsersRequest(row=row)

    response = await own.clients.users.ImportUsers(requests())
    assert response.created_count + response.updated_count == 1
    return (await own.clients.users.GetUser(pb.GetUserRequest(email=row.email))).user


async def newly_imported(own: OwnServer) -> User:
    row = UserImportRow(email="New@example.com", username="new", full_name="New", superuser=True, profile=PROFILE)
    return await imported(own, row)


async def changed_by_an_import(own: OwnServer) -> User:
    user = await created(own)
    return await imported(own, UserImportRow(email=user.email, username=user.username, full_name="Imported"))


@pytest.mark.parametrize(
    "make",
    [
        created,
        with_another_name_now,
        with_another_bio_now,
        with_another_password_now,
        inactive,
        deleted,
        brought_back,
        newly_imported,
        changed_by_an_import,
    ],
)
async def test_every_user_is_encoded(
    own: OwnServer, connection: asyncpg.Connection, make: Callable[[OwnServer], Awaitable[User]]
) -> None:
    user = await make(own)
    assert (await encoded_users(connection))[user.id] == (await stored_users(connection))[user.id]


async def test_a_user_reads_the_same_without_its_encoded_message(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    users = own.clients.users
    ada, bob = await created(own), await deleted(own)
    cid = await own.clients.create_user(superuser=True)
    expected = {user.id: user for user in (ada, bob, cid)}

    async def everywhere() -> list[dict[str, User]]:
        batch = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=list(expected)))
        page = await users.ListUsers(pb.ListUsersRequest(show_deleted=True, page_size=1000))
        exported = [
            user
            async for response in users.ExportUsers(pb.ExportUsersRequest(show_deleted=True))
            for user in response.users
        ]
        searches = [
            await users.SearchUsers(pb.SearchUsersRequest(query=user.username, show_deleted=True))
            for user in expected.values()
        ]
        answers: list[list[User]] = [
            [(await users.GetUser(pb.GetUserRequest(id=user_id))).user for user_id in expected],
            [(await users.GetUser(pb.GetUserRequest(email=user.email))).user for user in expected.values()],
            [(await users.GetUser(pb.GetUserRequest(username=user.username))).user for user in expected.values()],
            list(batch.users),
            list(page.users),
            exported,
            [result.user for found in searches for result in found.results],
        ]
        return [{user.id: user for user in answer if user.id in expected} for answer in answers]

    # The trigger does not touch this write, because no other column changes.
    keep = "UPDATE users SET message = $2 WHERE id = ANY($1)"
    ids = [UUID(user_id) for user_id in expected]
    assert await everywhere() == [expected] * 7
    await connection.execute(keep, ids[1:], None)
    assert await everywhere() == [expected] * 7
    await connection.execute(keep, ids, None)
    assert await everywhere() == [expected] * 7
    # Otherwise the test would prove nothing.
    await connection.execute(keep, ids, User(id=ada.id, full_name="Nobody").SerializeToString())
    names = {user.full_name for answer in await everywhere() for user in answer.values()}
    assert names == {"Nobody"}
    await connection.execute(keep, ids, None)


@pytest.mark.parametrize(
    "change",
    [
        "email = 'other' || email",
        "username = username || '2'",
        "full_name = 'Countess'",
        "superuser = NOT superuser",
        "state = 'INACTIVE'",
        "version = version + 1",
        "create_time = create_time - interval '1 day'",
        "update_time = update_time + interval '1 day'",
        "state = 'DELETED', undelete_state = 'ACTIVE', delete_time = now(), purge_time = now()",
        "id = gen_random_uuid()",
    ],
)
async def test_a_change_by_another_program_invalidates_the_encoded_user(
    own: OwnServer, connection: asyncpg.Connection, change: str
) -> None:
    user, bystander = await own.clients.create_user(), await own.clients.create_user()
    # So that it can get another id; a change by the service encodes it again.
    await connection.execute("DELETE FROM user_passwords WHERE user_id = $1", UUID(user.id))
    await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", UUID(user.id))
    await own.clients.users.UpdateUser(pb.UpdateUserRequest(user=User(id=user.id, full_name="Ada King")))
    assert user.id in await encoded_users(connection)
    changed = f"UPDATE users SET {change} WHERE id = $1 RETURNING id"
    user_id = str(await connection.fetchval(changed, UUID(user.id)))
    encoded, stored = await encoded_users(connection), await stored_users(connection)
    assert user_id not in encoded
    assert encoded[bystander.id] == stored[bystander.id]
    found = (await own.clients.users.GetUser(pb.GetUserRequest(id=user_id))).user
    assert (found.id, found.email, found.username, found.full_name, found.superuser) == stored[user_id][:5]
    # A change by the service encodes it again.
    if stored[user_id][5] != "DELETED":
        await own.clients.users.UpdateUser(pb.UpdateUserRequest(user=User(id=user_id, full_name="Grace Hopper")))
        assert (await encoded_users(connection))[user_id] == (await stored_users(connection))[user_id]


MOVE = """
WITH other AS (
    INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time)
    VALUES (gen_random_uuid(), 'other@example.com', 'other', '', false, 'ACTIVE', 1, now(), now()) RETURNING id
)
UPDATE user_profiles SET user_id = other.id FROM other WHERE user_id = $1
"""


@pytest.mark.parametrize(
    ("change", "profile"),
    [
        ("UPDATE user_profiles SET bio = 'Sails.' WHERE user_id = $1", ("Sails.", PROFILE.avatar_url)),
        ("UPDATE user_profiles SET avatar_url = '' WHERE user_id = $1", (PROFILE.bio, "")),
        ("DELETE FROM user_profiles WHERE user_id = $1", ("", "")),
        (MOVE, ("", "")),
    ],
    ids=["another_bio", "no_avatar", "no_profile", "the_profile_of_another"],
)
async def test_a_profile_changed_by_another_program_invalidates_the_encoded_user(
    own: OwnServer, connection: asyncpg.Connection, change: str, profile: tuple[str, str]
) -> None:
    user, bystander = await created(own), await created(own)
    await connection.execute(change, UUID(user.id))
    encoded = await encoded_users(connection)
    assert user.id not in encoded
    assert bystander.id in encoded
    found = (await own.clients.users.GetUser(pb.GetUserRequest(id=user.id))).user
    assert (found.profile.bio, found.profile.avatar_url) == profile


async def test_a_profile_added_by_another_program_is_visible(own: OwnServer, connection: asyncpg.Connection) -> None:
    user = await created(own)
    await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", UUID(user.id))
    await own.clients.users.DeactivateUser(pb.DeactivateUserRequest(id=user.id))
    assert user.id in await encoded_users(connection)
    await connection.execute("INSERT INTO user_profiles VALUES ($1, 'Sails.', '')", UUID(user.id))
    assert user.id not in await encoded_users(connection)
    found = (await own.clients.users.GetUser(pb.GetUserRequest(id=user.id))).user
    assert found.profile == UserProfile(bio="Sails.")


async def test_a_change_of_search_words_does_not_invalidate_the_encoded_user(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    user = await created(own)
    await connection.execute("UPDATE users SET search = NULL WHERE id = $1", UUID(user.id))
    assert user.id in await encoded_users(connection)


async def test_users_without_an_encoded_message_are_backfilled(own: OwnServer, connection: asyncpg.Connection) -> None:
    users = [await created(own), await deleted(own), await own.clients.create_user()]
    await connection.execute("UPDATE users SET message = NULL")
    await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", UUID(users[2].id))
    count = await connection.fetchval("SELECT count(*) FROM users")

    database = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), MESSAGE_ENCODERS)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return database.unit_of_work(actor="gc", request=None, time_left=lambda: 10)

    async with holding(own.database_url, LOCK_USER, users[0].id):
        # Rows that another transaction has locked are left for the next run.
        assert await backfill_encoded_users(unit_of_work) == count - 1
    assert await backfill_encoded_users(unit_of_work) == 1
    assert await backfill_encoded_users(unit_of_work) == 0
    await database.close()
    assert await encoded_users(connection) == await stored_users(connection)
    # There is no event, because nothing has changed.
    found = (await own.clients.users.GetUser(pb.GetUserRequest(id=users[0].id))).user
    assert found == users[0]


async def test_without_encoders_the_backfill_stores_nothing_and_ends(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    await created(own)
    await connection.execute("UPDATE users SET message = NULL")
    plain = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), encoders=None)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return plain.unit_of_work(actor="gc", request=None, time_left=lambda: 10)

    assert await backfill_encoded_users(unit_of_work) == 0
    await plain.close()
    assert not await encoded_users(connection)


async def is_waiting(connection: asyncpg.Connection) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await connection.fetchval(waiting) == 1)


async def test_a_profile_changed_by_hand_waits_for_a_call_that_may_encode_the_old_one(
    own: OwnServer, connection: asyncpg.Connection
) -> None:
    user = await created(own)
    await connection.execute("UPDATE users SET message = NULL WHERE id = $1", UUID(user.id))
    by_hand = "UPDATE user_profiles SET avatar_url = '' WHERE user_id = $1"
    async with driver_connection(own.database_url) as service:
        writing = service.transaction()
        await writing.start()
        # What the service does: lock, read, and write the message made from what it has read.
        await service.execute(LOCK_USER, UUID(user.id))
        change = asyncio.ensure_future(connection.execute(by_hand, UUID(user.id)))
        await eventually(lambda: is_waiting(service))
        await service.execute("UPDATE users SET message = $2 WHERE id = $1", UUID(user.id), user.SerializeToString())
        await writing.commit()
        await change
    assert user.id not in await encoded_users(connection)
