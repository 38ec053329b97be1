"""Reads from a real streaming replica: only if requested, within the maximum lag, with the primary as fallback."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service.config import DatabaseSettings, SettingsError, load
from service.db.connections.engine import create_engine
from service.db.operations import migrate
from service.db.operations.readiness import readiness_problem
from service.devtools.embedded_postgres import embedded_postgres
from tests.support.clients import Clients
from tests.support.databases import cloned, driver_connection
from tests.support.debug_sockets import ask, names_of
from tests.support.failures import fails, settled
from tests.support.passwords import PASSWORD
from tests.support.replicas import Replica, copy_of, running_replica
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually

PRIMARY = (("x-read-preference", "primary"),)
REPLICA = (("x-read-preference", "replica"),)
# Seconds; longer than any test takes.
ANY_LAG = 600


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a primary that only this module uses, and that replicas are copied from."""
    # Each copy makes a checkpoint, after which PostgreSQL would remove WAL that a lagging replica still needs.
    settings = {"wal_keep_size": "1GB"}
    with embedded_postgres(tmp_path_factory.mktemp("primary"), settings=settings) as url:
        yield url


@pytest.fixture(scope="module")
async def template(primary: str) -> str:
    """URL of a migrated database on the primary."""
    async with driver_connection(primary) as connection:
        await connection.execute("CREATE DATABASE migrated")
    url = primary.replace("/postgres?", "/migrated?")
    await prepare(url)
    return url


@pytest.fixture(scope="module")
async def shared_copy(template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replica") / "data"
    await copy_of(template, folder)
    return folder


@pytest.fixture(scope="module")
def replica(shared_copy: Path) -> Iterator[Replica]:
    """A replica that tests share: each must leave it as it was."""
    with running_replica(shared_copy) as replica:
        yield replica


@pytest.fixture
async def database_url(primary: str, template: str) -> AsyncIterator[str]:
    async with cloned(primary, template) as url:
        yield url


@pytest.fixture
async def own_copy(template: str, tmp_path: Path) -> Path:
    """Folder of a replica that only this test uses."""
    folder = tmp_path / "data"
    await copy_of(template, folder)
    return folder


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


async def prepare(url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    await migrate.upgrade(engine)
    await engine.dispose()


def told(logs: list[EventDict], event: str) -> list[EventDict]:
    return [line for line in logs if line["event"] == event]


@asynccontextmanager
async def serving(url: str, replica_url: str, **settings: object) -> AsyncIterator[Clients]:
    settings = {"READ_DATABASE_URL": replica_url, "max_replica_lag": ANY_LAG, **settings}
    async with serving_clients(url, **settings) as clients:
        yield clients


@asynccontextmanager
async def reading(url: str, replica: Replica, logs: list[EventDict], **settings: object) -> AsyncIterator[Clients]:
    """Run a server, and wait until it uses the replica."""
    await replica.until_replayed(url)
    async with serving(url, replica.database(url), **settings) as clients:
        await eventually(lambda: told(logs, "replica in use"))
        logs.clear()
        yield clients


async def rename(clients: Clients, user_id: str, name: str) -> None:
    user = User(id=user_id, full_name=name)
    await clients.users.UpdateUser(pb.UpdateUserRequest(user=user), metadata=REPLICA)


async def name_of(clients: Clients, user_id: str, metadata: tuple[tuple[str, str], ...] = REPLICA) -> str:
    return (await clients.users.GetUser(pb.GetUserRequest(id=user_id), metadata=metadata, timeout=20)).user.full_name


async def test_a_read_goes_to_the_replica_if_it_asks_for_that_and_not_else(
    database_url: str, replica: Replica, logs: list[EventDict]
) -> None:
    async with reading(database_url, replica, logs) as clients:
        user = await clients.create_user(full_name="Old")
        async with replica.paused(database_url):
            await rename(clients, user.id, "New")

            async def names(metadata: tuple[tuple[str, str], ...] | None) -> list[str]:
                users = clients.users
                one = [
                    await users.GetUser(pb.GetUserRequest(**key), metadata=metadata)
                    for key in ({"id": user.id}, {"email": user.email}, {"username": user.username})
                ]
                batch = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=[user.id]), metadata=metadata)
                listed = await users.ListUsers(pb.ListUsersRequest(), metadata=metadata)
                words = pb.SearchUsersRequest(query=user.username)
                found = await users.SearchUsers(words, metadata=metadata)
                many = [*batch.users, *listed.users, *(result.user for result in found.results)]
                return [answer.user.full_name for answer in one] + [user.full_name for user in many]

            assert await names(REPLICA) == ["Old"] * 6
            assert await names(None) == ["New"] * 6
            assert await names(PRIMARY) == ["New"] * 6


async def test_point_reads_of_both_sides_are_never_asked_together(
    database_url: str, replica: Replica, logs: list[EventDict]
) -> None:
    async with reading(database_url, replica, logs) as clients:
        user = await clients.create_user(full_name="Old")
        order = await clients.create_order(user.id, external_ref="old")
        async with replica.paused(database_url):
            await rename(clients, user.id, "New")
            changed = Order(id=order.id, external_ref="new")
            await clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=changed))

            async def both(metadata: tuple[tuple[str, str], ...]) -> tuple[str, str]:
                call = clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id), metadata=metadata)
                return await name_of(clients, user.id, metadata), (await call).order.external_ref

            answers = await asyncio.gather(*(both(side) for _ in range(20) for side in (REPLICA, PRIMARY)))
            assert answers == [("Old", "old"), ("New", "new")] * 20


async def test_calls_that_do_not_say_read_where_the_setting_sends_them_and_writes_stay_on_the_primary(
    database_url: str, replica: Replica, logs: list[EventDict]
) -> None:
    async with reading(database_url, replica, logs, read_preference="replica") as clients:
        user = await clients.create_user(full_name="Old")
        async with replica.paused(database_url):
            await rename(clients, user.id, "New")
            answer = await clients.users.GetUser(pb.GetUserRequest(id=user.id))
            assert answer.user.full_name == "Old"
            assert await name_of(clients, user.id, PRIMARY) == "New"

            # The replica has neither of these, and would answer NOT_FOUND.
            unknown = await clients.create_user()
            order = await clients.create_order(unknown.id)
            await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id), metadata=REPLICA)
            signed_in = await clients.users.VerifyPassword(
                pb.VerifyPasswordRequest(email=unknown.email, password=PASSWORD), metadata=REPLICA
            )
            assert signed_in.user.id == unknown.id
            with fails(grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND"):
                await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id))
            exported = [
                order.id
                async for answer in clients.orders.ExportOrders(orders_pb.ExportOrdersRequest(), metadata=REPLICA)
                for order in answer.orders
            ]
            assert exported == [order.id]


async def test_a_replica_that_lags_more_than_the_bound_is_left_until_it_has_caught_up(
    database_url: str, replica: Replica, logs: list[EventDict]
) -> None:
    async with reading(database_url, replica, logs, max_replica_lag=1) as clients:
        user = await clients.create_user(full_name="Old")
        async with replica.paused(database_url):
            await rename(clients, user.id, "New")
            (left,) = await eventually(lambda: told(logs, "replica out of use"))
            assert left["problem"] == "it lags behind"
            assert [await name_of(clients, user.id) for _ in range(20)] == ["New"] * 20
        logs.clear()
        await eventually(lambda: told(logs, "replica in use"))


async def test_a_replica_of_a_primary_where_nothing_happens_does_not_lag(
    database_url: str, replica: Replica, logs: list[EventDict]
) -> None:
    async with reading(database_url, replica, logs, max_replica_lag=0.5), driver_connection(replica.url) as there:
        await eventually(
            lambda: there.fetchval("SELECT now() - pg_last_xact_replay_timestamp() > interval '2 seconds'")
        )
        assert not told(logs, "replica out of use")


async def test_no_call_fails_when_the_replica_is_killed_and_it_is_used_again_when_it_is_back(
    database_url: str, own_copy: Path, logs: list[EventDict]
) -> None:
    async with AsyncExitStack() as stack:
        with running_replica(own_copy) as replica:
            clients = await stack.enter_async_context(reading(database_url, replica, logs, max_replica_lag=5))
            user = await clients.create_user()
            await replica.until_replayed(database_url)
            done = 0
            going = True

            async def read() -> None:
                nonlocal done
                while going:
                    await name_of(clients, user.id)
                    await clients.users.ListUsers(pb.ListUsersRequest(page_size=1), metadata=REPLICA, timeout=20)
                    done += 1

            load = asyncio.gather(*(read() for _ in range(20)))
            await eventually(lambda: done > 100)
            replica.kill()
            await eventually(lambda: told(logs, "replica out of use"))
            before = done
            await eventually(lambda: done > before + 100)
            going = False
            await load
            assert len(told(logs, "replica out of use")) == 1
        with running_replica(own_copy):
            await eventually(lambda: told(logs, "replica in use"))
            assert await name_of(clients, user.id) == user.full_name


async def test_calls_that_a_frozen_replica_does_not_answer_are_answered_by_the_primary(
    database_url: str, own_copy: Path, logs: list[EventDict]
) -> None:
    with running_replica(own_copy) as replica:
        async with reading(database_url, replica, logs, max_replica_lag=2) as clients:
            user = await clients.create_user()
            await replica.until_replayed(database_url)
            await asyncio.gather(*(name_of(clients, user.id) for _ in range(50)))
            with replica.frozen():
                # More calls than the pool has connections.
                listing = [
                    clients.users.ListUsers(pb.ListUsersRequest(page_size=1), metadata=REPLICA, timeout=20)
                    for _ in range(30)
                ]
                answers, failures = await settled(*listing, *(name_of(clients, user.id) for _ in range(30)))
            assert (len(answers), failures) == (60, [])
            assert told(logs, "replica out of use")


async def test_a_promoted_replica_is_not_used(database_url: str, own_copy: Path, logs: list[EventDict]) -> None:
    with running_replica(own_copy) as replica:
        async with reading(database_url, replica, logs) as clients:
            user = await clients.create_user(full_name="Old")
            await replica.until_replayed(database_url)
            async with driver_connection(replica.url) as there:
                await there.execute("SELECT pg_promote()")
            (left,) = await eventually(lambda: told(logs, "replica out of use"))
            assert left["problem"] == "READ_DATABASE_URL does not point to a replica"
            await rename(clients, user.id, "New")
            assert await name_of(clients, user.id) == "New"


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("the primary", "not point to a replica"),
        ("another database", "another database"),
        ("nowhere", "cannot be measured"),
    ],
)
async def test_a_server_that_is_not_a_replica_of_the_database_is_not_used(
    database_url: str, replica: Replica, where: str, problem: str, tmp_path: Path, logs: list[EventDict]
) -> None:
    wrong = {
        "the primary": database_url,
        "another database": replica.url,
        "nowhere": f"postgresql://postgres@/postgres?host={tmp_path}",
    }
    async with serving(database_url, wrong[where]) as clients:
        (line,) = told(logs, "replica out of use")
        assert problem in line["problem"]
        assert "host" not in str(line)
        user = await clients.create_user()
        assert await name_of(clients, user.id) == user.full_name


async def test_a_replica_of_another_cluster_is_not_used(
    replica: Replica, tmp_path: Path, logs: list[EventDict]
) -> None:
    with embedded_postgres(tmp_path) as url:
        await prepare(url)
        # Both have a database `postgres`, on the same timeline.
        async with serving(url, replica.url):
            (line,) = told(logs, "replica out of use")
            assert "another" in line["problem"]


async def test_a_replica_of_a_promoted_server_is_not_used(
    database_url: str, own_copy: Path, tmp_path: Path, logs: list[EventDict]
) -> None:
    with running_replica(own_copy) as promoted:
        await promoted.until_replayed(database_url)
        async with driver_connection(promoted.url) as connection:
            await connection.execute("SELECT pg_promote()")
        await copy_of(promoted.url, tmp_path / "another")
        with running_replica(tmp_path / "another") as replica:
            async with serving(database_url, replica.database(database_url)):
                (line,) = told(logs, "replica out of use")
                assert "timeline" in line["problem"]


@pytest.mark.parametrize("sqlstate", ["40001", "42P01", "25006", "XX000"])
async def test_reads_that_only_the_replica_refuses_go_to_the_primary(
    database_url: str, replica: Replica, logs: list[EventDict], sqlstate: str
) -> None:
    async with reading(database_url, replica, logs) as clients, driver_connection(database_url) as connection:
        user = await clients.create_user()
        # As a conflict with recovery does.
        await connection.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS boolean LANGUAGE plpgsql AS $$
            BEGIN
                IF pg_is_in_recovery() THEN
                    RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}';
                END IF;
                RETURN true;
            END
            $$;
            ALTER TABLE users RENAME TO all_users;
            CREATE VIEW users AS SELECT * FROM all_users WHERE refuse();
            """
        )
        await replica.until_replayed(database_url)
        assert await name_of(clients, user.id) == user.full_name
        assert len(told(logs, "replica failed; reading from the primary") + told(logs, "replica out of use")) == 1


@pytest.mark.parametrize("value", ["Replica", "secondary", ""])
async def test_a_preference_that_is_none_is_refused(clients: Clients, value: str) -> None:
    user = await clients.create_user()
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="x-read-preference"):
        await name_of(clients, user.id, (("x-read-preference", value),))


async def test_without_a_replica_the_primary_answers(clients: Clients) -> None:
    user = await clients.create_user()
    assert await name_of(clients, user.id) == user.full_name


async def test_a_wrong_url_of_a_replica_is_named_and_not_shown(database_url: str) -> None:
    with pytest.raises(SettingsError, match=r"^READ_DATABASE_URL is wrong") as raised:
        async with running_server(database_url, READ_DATABASE_URL="mysql://ada:hunter2@there/db"):
            pass
    assert "hunter2" not in str(raised.value)


async def test_a_standby_is_not_ready(template: str, replica: Replica) -> None:
    await replica.until_replayed(template)
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=replica.database(template)), pool_size=1)
    try:
        assert "the database is a standby" in str(await readiness_problem(engine))
    finally:
        await engine.dispose()


async def test_what_the_replica_does_is_shown_to_who_debugs(
    database_url: str, replica: Replica, logs: list[EventDict]
) -> None:
    before = names_of(os.getpid())
    async with reading(database_url, replica, logs) as clients:
        (name,) = names_of(os.getpid()) - before
        async with driver_connection(database_url) as connection, driver_connection(database_url) as other:
            transaction = connection.transaction()
            await transaction.start()
            # The replica takes this lock, too, when it replays it.
            await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            # A commit writes the log up to here.
            await other.execute("SELECT pg_logical_emit_message(true, 'test', '')")
            await replica.until_replayed(database_url)
            call = clients.users.ListUsers(pb.ListUsersRequest(), metadata=REPLICA)

            async def waits() -> list[dict[str, Any]]:
                sessions = (await ask(name, {"ask": "statements"}))["sessions"]
                # What the server does is seen a moment before what PostgreSQL does.
                return [each for each in sessions if each["waits_for"] == "Lock: relation" and each["statement"]]

            (session,) = await eventually(waits)
            assert (session["server"], session["statement"], session["is_ours"]) == ("replica", "list_users", True)
            used = (await ask(name, {"ask": "pool"}))["connections"]
            assert {each["pool"] for each in used if each["connection"] == session["connection"]} == {"replica"}
            await transaction.rollback()
            await call
