import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.common.v1.error_reason_pb2 import ErrorReason
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from commerce.users.v1.user_pb2 import User, UserProfile, UserState

from service.application.imports import Done, OnConflict, import_rows
from service.config import DatabaseSettings, load
from service.db.database import Database
from service.rpc.messages.user_import import parse_import_row
from service.rpc.streams.imports import CHUNK_ROWS, LAST_COMMITTED_ROW, MAX_FAILURES
from service.server import MESSAGE_ENCODERS
from tests.support.clients import Clients, connect
from tests.support.databases import Observer, driver_connection
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.memory import resident_megabytes
from tests.support.passwords import PASSWORD
from tests.support.sent_statements import sent_statements
from tests.support.servers import running_server
from tests.support.waiting import eventually

SKIP = UserImportOnConflict.USER_IMPORT_ON_CONFLICT_SKIP
UPDATE = UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UPDATE
FAIL = UserImportOnConflict.USER_IMPORT_ON_CONFLICT_FAIL


def new_row(**fields: Any) -> UserImportRow:
    name = f"i{uuid4().hex[:20]}"
    return UserImportRow(**{"email": f"{name}@example.com", "username": name, "full_name": "Ada Lovelace", **fields})


def row_of(user: User, **fields: Any) -> UserImportRow:
    """A row about a user that exists."""
    return UserImportRow(**{"email": user.email.upper(), "username": user.username, **fields})


async def messages(rows: Iterable[UserImportRow], **config: Any) -> AsyncIterator[pb.ImportUsersRequest]:
    yield pb.ImportUsersRequest(config=UserImportConfig(**config))
    for row in rows:
        yield pb.ImportUsersRequest(row=row)


async def import_users(clients: Clients, rows: Iterable[UserImportRow], **config: Any) -> pb.ImportUsersResponse:
    return await clients.users.ImportUsers(messages(rows, **config))


async def user_of(clients: Clients, row: UserImportRow) -> User:
    return (await clients.users.GetUser(pb.GetUserRequest(email=row.email))).user


def counts(response: pb.ImportUsersResponse) -> tuple[int, int, int, int]:
    return response.created_count, response.updated_count, response.skipped_count, response.failure_count


async def event_types(url: str, user_id: str) -> list[str]:
    async with driver_connection(url) as connection:
        rows = await connection.fetch("SELECT type FROM events WHERE aggregate_id = $1 ORDER BY position", user_id)
    return [row["type"] for row in rows]


async def test_rows_become_users_with_profiles_and_events(clients: Clients, shared_database_url: str) -> None:
    profile = UserProfile(bio="Likes engines.", avatar_url="https://example.com/ada.png")
    rows = [new_row(superuser=True, profile=profile), new_row(full_name="")]
    response = await import_users(clients, rows)
    assert counts(response) == (2, 0, 0, 0)
    assert response.last_committed_row == 2
    user = await user_of(clients, rows[0])
    assert (user.email, user.username, user.full_name) == (rows[0].email, rows[0].username, "Ada Lovelace")
    assert (user.superuser, user.profile, user.state) == (True, profile, UserState.USER_STATE_ACTIVE)
    assert user.create_time == user.update_time
    assert await event_types(shared_database_url, user.id) == ["CREATED"]
    found = await clients.users.SearchUsers(pb.SearchUsersRequest(query=f"{rows[0].username} engines"))
    assert [result.user for result in found.results] == [user]


async def test_the_same_rows_again_are_skipped_and_change_nothing(clients: Clients, shared_database_url: str) -> None:
    rows = [new_row() for _ in range(3)]
    await import_users(clients, rows)
    user = await user_of(clients, rows[0])
    for on_conflict in (SKIP, UPDATE):
        response = await import_users(clients, rows, on_conflict=on_conflict)
        assert counts(response) == (0, 0, 3, 0)
    assert await user_of(clients, rows[0]) == user
    assert await event_types(shared_database_url, user.id) == ["CREATED"]


async def test_skip_leaves_a_user_unchanged_for_any_case_of_its_email(clients: Clients) -> None:
    user = await clients.create_user()
    response = await import_users(clients, [row_of(user, full_name="Other"), new_row()])
    assert counts(response) == (1, 0, 1, 0)
    assert (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == user


async def test_update_changes_only_the_fields_that_the_row_sets(clients: Clients, shared_database_url: str) -> None:
    user = await clients.create_user(superuser=True, profile=UserProfile(bio="old", avatar_url="https://x.example/a"))
    bare = await clients.create_user()
    async with driver_connection(shared_database_url) as connection:
        await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", bare.id)
    rows = [row_of(user, profile=UserProfile(bio="new")), row_of(bare, profile=UserProfile(bio="first")), new_row()]
    response = await import_users(clients, rows, on_conflict=UPDATE)
    assert counts(response) == (1, 2, 0, 0)
    updated = await user_of(clients, rows[0])
    assert updated.profile == UserProfile(bio="new", avatar_url="https://x.example/a")
    assert (updated.superuser, updated.full_name, updated.email) == (True, user.full_name, user.email)
    assert updated.etag != user.etag
    assert (await user_of(clients, rows[1])).profile.bio == "first"
    assert await event_types(shared_database_url, user.id) == ["CREATED", "UPDATED"]
    await import_users(clients, [row_of(user, superuser=False)], on_conflict=UPDATE)
    assert not (await user_of(clients, rows[0])).superuser


async def test_update_leaves_a_deleted_user_alone(clients: Clients) -> None:
    user = await clients.create_user()
    await clients.users.DeleteUser(pb.DeleteUserRequest(id=user.id))
    response = await import_users(clients, [row_of(user, full_name="Other"), new_row()], on_conflict=UPDATE)
    assert counts(response) == (1, 0, 0, 1)
    assert response.failures[0].reason == ErrorReason.ERROR_REASON_USER_DELETED
    assert counts(await import_users(clients, [row_of(user)], on_conflict=SKIP)) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"email": "not an e-mail"}, "email"),
        ({"email": ""}, "email"),
        ({"username": ""}, "username"),
        ({"username": "NO"}, "username"),
        ({"full_name": "a\nb"}, "full_name"),
        ({"full_name": "\u200b"}, "full_name"),
        ({"profile": UserProfile(bio="\r\n" * 1001)}, "profile.bio"),
        ({"password": "short"}, "password"),
        ({"profile": UserProfile(avatar_url="javascript:alert(1)")}, "profile.avatar_url"),
    ],
)
async def test_a_wrong_row_is_named_and_the_others_go_on(clients: Clients, fields: dict[str, Any], field: str) -> None:
    rows = [new_row(), new_row(**fields), new_row()]
    response = await import_users(clients, rows, first_row_number=10)
    assert counts(response) == (2, 0, 0, 1)
    (failure,) = response.failures
    assert (failure.row_number, failure.reason, failure.field) == (11, ErrorReason.ERROR_REASON_INVALID_FIELD, field)
    assert failure.message
    assert response.last_committed_row == 12
    assert (await user_of(clients, rows[2])).username == rows[2].username


@pytest.mark.parametrize("on_conflict", [SKIP, UPDATE])
async def test_a_taken_username_fails_its_row_only(
    clients: Clients, shared_database_url: str, on_conflict: int
) -> None:
    taken = await clients.create_user()
    other = await clients.create_user()
    rows = [new_row(), new_row(username=taken.username), new_row()]
    if on_conflict == UPDATE:
        rows.append(row_of(other, username=taken.username))
    response = await import_users(clients, rows, on_conflict=on_conflict)
    assert counts(response) == (2, 0, 0, len(rows) - 2)
    for failure in response.failures:
        assert (failure.reason, failure.field) == (ErrorReason.ERROR_REASON_USER_ALREADY_EXISTS, "username")
    assert [failure.row_number for failure in response.failures] == [2, 4][: len(rows) - 2]
    created = await user_of(clients, rows[0])
    assert await event_types(shared_database_url, created.id) == ["CREATED"]
    assert (await clients.users.GetUser(pb.GetUserRequest(id=other.id))).user == other
    assert await event_types(shared_database_url, other.id) == ["CREATED"]


async def test_rows_about_one_user_are_taken_in_their_order(clients: Clients) -> None:
    row = new_row()
    again = UserImportRow(email=row.email.upper(), username=row.username, full_name="Second")
    response = await import_users(clients, [row, again, row], on_conflict=UPDATE)
    assert counts(response) == (1, 2, 0, 0)
    assert (await user_of(clients, row)).full_name == row.full_name
    first, thief = new_row(), new_row()
    thief.username = first.username
    response = await import_users(clients, [first, thief])
    assert counts(response) == (1, 0, 0, 1)
    assert response.failures[0].row_number == 2


async def test_fail_ends_at_the_first_conflict_and_keeps_the_rows_before_it(clients: Clients) -> None:
    user = await clients.create_user()
    rows = [new_row() for _ in range(CHUNK_ROWS + 2)]
    conflict = [*rows, row_of(user), new_row()]
    with fails(grpc.StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS") as failure:
        await import_users(clients, conflict, on_conflict=FAIL, first_row_number=1)
    last = len(rows)
    assert failure.metadata == {"field": "email", "row_number": str(last + 1), "last_committed_row": str(last)}
    assert failure.trailers[LAST_COMMITTED_ROW] == str(last)
    for row in (rows[0], rows[-1]):
        await user_of(clients, row)
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await user_of(clients, conflict[-1])


async def test_fail_ends_at_a_taken_username_too(clients: Clients) -> None:
    user = await clients.create_user()
    rows = [new_row(), new_row(username=user.username), new_row()]
    with fails(grpc.StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS") as failure:
        await import_users(clients, rows, on_conflict=FAIL)
    assert failure.metadata == {"field": "username", "row_number": "2", "last_committed_row": "1"}
    await user_of(clients, rows[0])
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await user_of(clients, rows[2])


async def test_a_user_without_a_password_signs_in_after_set_password_gave_it_one(clients: Clients) -> None:
    rows = [new_row(), new_row(password=PASSWORD)]
    await import_users(clients, rows)
    sign_in = pb.VerifyPasswordRequest(email=rows[1].email, password=PASSWORD)
    assert (await clients.users.VerifyPassword(sign_in)).user.username == rows[1].username
    sign_in = pb.VerifyPasswordRequest(email=rows[0].email, password=PASSWORD)
    with fails(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"):
        await clients.users.VerifyPassword(sign_in)
    user = await user_of(clients, rows[0])
    await clients.users.SetPassword(pb.SetPasswordRequest(id=user.id, password=PASSWORD))
    await clients.users.VerifyPassword(sign_in)


async def test_an_import_never_replaces_a_password(clients: Clients) -> None:
    user = await clients.create_user()
    for on_conflict in (SKIP, UPDATE):
        await import_users(clients, [row_of(user, password="another password")], on_conflict=on_conflict)  # noqa: S106 - of a test
    await clients.users.VerifyPassword(pb.VerifyPasswordRequest(email=user.email, password=PASSWORD))


async def test_an_import_of_no_rows_does_nothing(clients: Clients) -> None:
    response = await import_users(clients, [], first_row_number=7)
    assert counts(response) == (0, 0, 0, 0)
    assert response.last_committed_row == 6


async def nothing() -> AsyncIterator[pb.ImportUsersRequest]:
    return
    yield


@pytest.mark.parametrize("number", [0, 1, 2, 3])
async def test_the_configuration_comes_first_and_once(clients: Clients, number: int) -> None:
    async def wrong() -> AsyncIterator[pb.ImportUsersRequest]:
        yield pb.ImportUsersRequest(row=new_row())

    async def twice() -> AsyncIterator[pb.ImportUsersRequest]:
        for _ in range(2):
            yield pb.ImportUsersRequest(config=UserImportConfig())

    requests = [nothing(), wrong(), twice(), messages([], first_row_number=-1)][number]
    field = "config.first_row_number" if number == 3 else "config"
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=field):
        await clients.users.ImportUsers(requests)


async def test_a_message_that_is_no_row_ends_the_call_after_the_chunks_before_it(clients: Clients) -> None:
    rows = [new_row() for _ in range(CHUNK_ROWS)]

    async def broken() -> AsyncIterator[pb.ImportUsersRequest]:
        async for message in messages(rows):
            yield message
        yield pb.ImportUsersRequest()

    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD") as failure:
        await clients.users.ImportUsers(broken())
    assert failure.trailers[LAST_COMMITTED_ROW] == str(CHUNK_ROWS)
    await user_of(clients, rows[-1])


async def test_only_the_first_failures_are_named(clients: Clients) -> None:
    response = await import_users(clients, [new_row(email="") for _ in range(MAX_FAILURES + 5)])
    assert response.failure_count == MAX_FAILURES + 5
    assert [failure.row_number for failure in response.failures] == list(range(1, MAX_FAILURES + 1))


async def test_concurrent_imports_of_the_same_rows_create_each_user_once(
    clients: Clients, shared_database_url: str
) -> None:
    rows = [new_row() for _ in range(300)]
    orders: Sequence[list[UserImportRow]] = [rows, rows[::-1], rows[150:] + rows[:150]]
    responses = await asyncio.gather(*(import_users(clients, order, on_conflict=UPDATE) for order in orders))
    assert sum(response.created_count for response in responses) == 300
    assert sum(response.skipped_count for response in responses) == 600
    assert not any(response.failure_count for response in responses)
    assert await event_types(shared_database_url, (await user_of(clients, rows[7])).id) == ["CREATED"]


@dataclass
class Pulled:
    """The number of messages that gRPC has taken from the caller."""

    count: int = 0


async def test_a_chunk_takes_few_statements_however_many_rows_it_has(clients: Clients) -> None:
    with sent_statements() as sent:
        await import_users(clients, [new_row(profile=UserProfile(bio="x")) for _ in range(500)])
    # The time limit, a savepoint, the lookup, users, profiles, events, and the end of the savepoint.
    assert len(sent) == 7


async def test_an_import_takes_the_same_memory_however_many_rows_it_has(clients: Clients) -> None:
    measured: list[float] = []
    chunk = [new_row() for _ in range(CHUNK_ROWS)]

    def padded(chunks: int) -> Iterable[UserImportRow]:
        for number in range(chunks):
            measured.append(resident_megabytes())
            # The same users each time, which is faster.
            for row in chunk:
                bio = f"{number} {'x' * 900}"
                yield UserImportRow(email=row.email, username=row.username, profile=UserProfile(bio=bio))

    # Memory that the first rows take is not given back.
    await import_users(clients, padded(5))
    before = measured[-1]
    response = await import_users(clients, padded(40))
    assert response.skipped_count == 40 * CHUNK_ROWS
    # The rows alone would be 40 MB as text, and more than twice that as messages.
    assert max(measured) - before < 25


# What waits for a lock of this connection, not what another test has left.
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"


@asynccontextmanager
async def held_up(clients: Clients, url: str, rows: Iterable[UserImportRow]) -> AsyncIterator[Pulled]:
    """Run an import whose first chunk waits for a lock until the block ends."""
    user = await clients.create_user()
    pulled = Pulled()

    async def counted() -> AsyncIterator[pb.ImportUsersRequest]:
        async for message in messages(chain([row_of(user)], rows), on_conflict=UPDATE):
            pulled.count += 1
            yield message
        await asyncio.Event().wait()

    async with driver_connection(url) as connection, connection.transaction():
        await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user.id)
        call = asyncio.ensure_future(clients.users.ImportUsers(counted()))
        await eventually(lambda: connection.fetchval(WAITING))
        yield pulled
        call.cancel()


async def test_an_import_reads_no_further_than_the_connection_buffers(
    clients: Clients, shared_database_url: str
) -> None:
    padded = (new_row(profile=UserProfile(bio="x" * 1000)) for _ in range(1_000_000))
    async with held_up(clients, shared_database_url, padded) as pulled:
        seen = 0
        while pulled.count > seen:
            seen = pulled.count
            await asyncio.sleep(1)
        assert CHUNK_ROWS < pulled.count < 30 * CHUNK_ROWS


async def test_a_chunk_under_way_is_written_though_its_caller_has_left(
    clients: Clients, shared_database_url: str
) -> None:
    rows = [new_row() for _ in range(CHUNK_ROWS - 1)]
    async with held_up(clients, shared_database_url, rows):
        pass
    emails = [row.email for row in rows]
    async with driver_connection(shared_database_url) as connection:
        count = await eventually(
            lambda: connection.fetchval("SELECT count(*) FROM users WHERE email = ANY($1)", emails)
        )
    assert count == len(rows)


async def test_a_chunk_whose_connection_breaks_is_written_with_another(
    clients: Clients, shared_database_url: str
) -> None:
    user = await clients.create_user()
    rows = [row_of(user, full_name="Other"), *(new_row() for _ in range(10))]
    async with driver_connection(shared_database_url) as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user.id)
            call = asyncio.ensure_future(import_users(clients, rows, on_conflict=UPDATE))
            await eventually(lambda: connection.fetchval(WAITING))
            await connection.execute(WAITING.replace("count(*)", "pg_terminate_backend(pid)"))
        assert counts(await call) == (10, 1, 0, 0)


# A hash takes about 0.1 s. Fewer passwords may wait than imports run.
BUSY = {"argon2_time_cost": 20, "argon2_memory_kib": 8192, "password_threads": 1, "password_queue_size": 2}


async def test_sign_ins_come_before_the_passwords_of_imports(database_url: str) -> None:
    async with running_server(database_url, **BUSY) as server, connect(server.port) as clients:
        user = await clients.create_user()
        rows = [[new_row(password=PASSWORD) for _ in range(100)] for _ in range(10)]
        calls = [asyncio.ensure_future(import_users(clients, some)) for some in rows]
        sign_in = pb.VerifyPasswordRequest(email=user.email, password=PASSWORD)
        for _ in range(5):
            await clients.users.VerifyPassword(sign_in)
            await clients.create_user()
            await clients.users.SetPassword(pb.SetPasswordRequest(id=user.id, password=PASSWORD))
        # All 1000 passwords would take more than a minute.
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_imports_leave_connections_to_calls(database_url: str, observer: Observer) -> None:
    async with running_server(database_url, db_pool_timeout=1) as server, connect(server.port) as clients:
        user = await clients.create_user()
        async with holding(database_url, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user.id)):
            rows = [[row_of(user, full_name=f"Ada {number}"), new_row()] for number in range(12)]
            calls = [asyncio.ensure_future(import_users(clients, some, on_conflict=UPDATE)) for some in rows]
            await observer.until_waiting(2)
            # As many as the pool has connections for transactions.
            others = await asyncio.gather(*(clients.create_user() for _ in range(8)))
            # Longer than a connection is waited for: an import waits for the others without failing.
            await asyncio.sleep(1.5)
            assert len(await observer.backends(waiting=True)) == 2
        for call in calls:
            assert counts(await call) == (1, 1, 0, 0)
    assert await observer.count("users") == 1 + len(others) + len(rows)


@pytest.mark.parametrize("on_conflict", OnConflict)
async def test_a_row_whose_commit_was_not_heard_of_is_known_again(
    shared_database_url: str, on_conflict: OnConflict
) -> None:
    message = new_row(password=PASSWORD)
    rows = [parse_import_row(message)]
    store = Database(load(DatabaseSettings, DATABASE_URL=shared_database_url), MESSAGE_ENCODERS)
    for _ in range(2):
        async with store.unit_of_work(actor="test", request=None, time_left=lambda: 30) as uow:
            hashes = {rows[0].id: "$argon2id$"}
            assert await import_rows(uow, rows, hashes, on_conflict, datetime.now(UTC)) == [Done.CREATED]
            await uow.commit(b"")
    assert await event_types(shared_database_url, str(rows[0].id)) == ["CREATED"]
    await store.close()
