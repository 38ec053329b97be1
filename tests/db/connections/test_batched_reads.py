"""Batched reads by id: each call gets its own, current answer, and fails only for its own reasons."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.users.v1.user_pb2 import User
from grpc import StatusCode
from structlog.testing import capture_logs

from service.db.writes.fast_path.encoded_orders import ENCODED_ORDERS_BY_IDS
from tests.support.clients import Clients, connect
from tests.support.databases import Observer
from tests.support.failures import fails, settled
from tests.support.locks import holding
from tests.support.methods import call, path_of
from tests.support.requests import transition_request
from tests.support.sent_statements import sent_statements
from tests.support.servers import running_server
from tests.support.waiting import eventually

Reading = asyncio.Future[User]
LOCK_USERS = "LOCK TABLE users"
# The limits: concurrent statements, and keys of one statement.
AT_ONCE = 2
MAX_KEYS = 100


@pytest.fixture
async def port(database_url: str) -> AsyncIterator[int]:
    # With so few connections, no statement runs in place of one that is stuck. Admission would decide how many of the
    # calls that come together wait for a statement together.
    async with running_server(database_url, db_pool_size=4, admission=False) as server:
        yield server.port


@pytest.fixture
async def served(port: int) -> AsyncIterator[Clients]:
    async with connect(port) as clients:
        yield clients


@asynccontextmanager
async def callers(port: int) -> AsyncIterator[list[Clients]]:
    """Open four channels, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connect(port, own_connection=True)) for _ in range(4)]


async def get(clients: Clients, user_id: str, **options: Any) -> User:
    return (await clients.users.GetUser(users_pb.GetUserRequest(id=user_id), **options)).user


def getting(clients: Clients, user_id: str, **options: Any) -> Reading:
    return asyncio.ensure_future(get(clients, user_id, **options))


def failed_attempts(logs: Any) -> list[int]:
    return [line["attempt"] for line in logs if line["event"] == "retrying"]


# Acknowledged writes are visible


async def test_64_callers_read_what_they_have_written(port: int) -> None:
    async def write_and_read(clients: Clients, number: int) -> None:
        user = await clients.create_user()
        assert await get(clients, user.id) == user
        for turn in range(6):
            change = User(id=user.id, full_name=f"{number} {turn}")
            user = (await clients.users.UpdateUser(users_pb.UpdateUserRequest(user=change))).user
            assert await get(clients, user.id) == user
            order = await clients.create_order(user.id)
            for transition in ("Confirm", "Process", "Ship", "Deliver"):
                read = await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id))
                assert read.order == order
                order = (
                    await call(clients.channel, f"{transition}Order", transition_request(transition, order.id))
                ).order

    async with callers(port) as clients:
        await asyncio.gather(*(write_and_read(clients[number % 4], number) for number in range(64)))


async def test_no_read_returns_a_version_older_than_an_acknowledged_one(port: int) -> None:
    newest = 1

    async def write(clients: Clients, user_id: str) -> None:
        nonlocal newest
        for _ in range(40):
            change = User(id=user_id, full_name=uuid4().hex)
            answer = await clients.users.UpdateUser(users_pb.UpdateUserRequest(user=change))
            newest = max(newest, int(answer.user.etag[1:]))

    async def read(clients: Clients, user_id: str, writing: "asyncio.Future[Any]") -> None:
        while not writing.done():
            acknowledged = newest
            assert int((await get(clients, user_id)).etag[1:]) >= acknowledged

    async with callers(port) as clients:
        user_id = (await clients[0].create_user()).id
        writing = asyncio.gather(*(write(clients[number % 4], user_id) for number in range(4)))
        await asyncio.gather(*(read(clients[number % 4], user_id, writing) for number in range(32)))
        await writing
    assert newest == 1 + 4 * 40


# Together


async def all_have_come(clients: Clients, method: str, count: int) -> None:
    """Wait until the server runs this many calls of a method, and has sent all statements that it can."""
    # This is how gRPC names the tasks of calls.
    name = f"HandleExceptions[{path_of(method)}]"
    await eventually(lambda: sum(task.get_name() == name for task in asyncio.all_tasks()) == count)
    # A call that needs a statement too, and starts later.
    await clients.orders.ListTags(orders_pb.ListTagsRequest())


@asynccontextmanager
async def busy(clients: Clients, user: User, database_url: str, observer: Observer) -> AsyncIterator[list[Reading]]:
    """Make the maximum number of concurrent statements wait until the block ends, each for one call."""
    async with holding(database_url, LOCK_USERS):
        gets = []
        # One by one: a key that arrives while a statement runs goes into the next.
        for count in range(1, AT_ONCE + 1):
            gets.append(getting(clients, user.id))
            await observer.until_waiting(count)
        yield gets


async def test_two_connections_are_enough_for_any_number_of_calls(
    served: Clients, database_url: str, observer: Observer
) -> None:
    users = [await served.create_user() for _ in range(5)]
    with sent_statements() as sent:
        async with busy(served, users[0], database_url, observer) as first:
            gets = [getting(served, users[index % 5].id) for index in range(60)]
            unknown = getting(served, str(uuid4()))
            await all_have_come(served, "GetUser", AT_ONCE + 61)
            assert len(await observer.backends(waiting=True)) == AT_ONCE
        assert await asyncio.gather(*gets) == [users[index % 5] for index in range(60)]
        assert await asyncio.gather(*first) == [users[0]] * AT_ONCE
        with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
            await unknown
    # One statement for the calls that arrived meanwhile.
    assert len(users_asked(sent)) == AT_ONCE + 1


async def test_one_statement_has_no_more_than_a_hundred_keys(port: int, database_url: str, observer: Observer) -> None:
    # A connection carries at most a hundred concurrent calls.
    async with callers(port) as clients:
        user = await clients[0].create_user()
        with sent_statements() as sent:
            async with busy(clients[0], user, database_url, observer) as first:
                unknown = [getting(clients[number % 4], str(uuid4())) for number in range(250)]
                await all_have_come(clients[0], "GetUser", AT_ONCE + 250)
            ended = await asyncio.gather(*unknown, return_exceptions=True)
            await asyncio.gather(*first)
    assert {error.code() for error in ended if isinstance(error, grpc.aio.AioRpcError)} == {StatusCode.NOT_FOUND}
    assert users_asked(sent) == [*[1] * AT_ONCE, 50, MAX_KEYS, MAX_KEYS]


def asked(values: Sequence[str]) -> int:
    """Return the number of ids in a statement's only parameter, the text of an array."""
    (ids,) = values
    return len(ids.split(","))


def users_asked(sent: list[tuple[str, Any]]) -> list[int]:
    """Return the number of users that each statement has asked for, in ascending order."""
    return sorted([asked(values) for statement, values in sent if "FROM users" in statement])


# Apart


async def test_a_cancelled_call_does_not_cancel_others(served: Clients, database_url: str, observer: Observer) -> None:
    user = await served.create_user()
    await get(served, user.id)
    connections = await observer.backends()
    with capture_logs() as logs:
        async with busy(served, user, database_url, observer) as first:
            leave, in_a_hurry, stay = [], [], []
            for _ in range(10):
                leave.append(getting(served, user.id))
                in_a_hurry.append(getting(served, user.id, timeout=1))
                stay.append(getting(served, user.id))
            await all_have_come(served, "GetUser", AT_ONCE + 30)
            # Also calls whose key is in a running statement.
            for caller in (*leave, first[0]):
                caller.cancel()
            _, failures = await settled(*in_a_hurry)
            assert {failure.code for failure in failures} == {StatusCode.DEADLINE_EXCEEDED}
            assert len(failures) == 10
        assert await asyncio.gather(*stay, *first[1:]) == [user] * (10 + AT_ONCE - 1)
        await eventually(lambda: [line["event"] for line in logs].count("call") >= 30 + AT_ONCE)
    assert [line for line in logs if line["log_level"] in {"error", "warning"}] == []
    assert failed_attempts(logs) == []
    # No cancelled call has cost a connection.
    assert connections <= await observer.backends()


async def test_a_statement_without_waiting_calls_delays_no_other(
    served: Clients, database_url: str, observer: Observer
) -> None:
    user = await served.create_user()
    async with busy(served, user, database_url, observer) as gets:
        for caller in gets:
            caller.cancel()
        await asyncio.wait(gets)
        # They still wait, and no other statement is sent.
        later = getting(served, user.id)
        await all_have_come(served, "GetUser", 1)
        assert len(await observer.backends(waiting=True)) == AT_ONCE
    assert await later == user


async def test_a_connection_that_dies_costs_those_another_try_whose_keys_it_had(
    served: Clients, database_url: str, observer: Observer
) -> None:
    user = await served.create_user()
    with capture_logs() as logs:
        async with busy(served, user, database_url, observer) as gets:
            later = [getting(served, user.id) for _ in range(10)]
            await all_have_come(served, "GetUser", AT_ONCE + 10)
            killed = min(await observer.backends(waiting=True))
            await observer.terminate({killed})
            # The next statement waits instead.
            assert killed not in await observer.until_waiting(AT_ONCE)
        assert await asyncio.gather(*gets, *later) == [user] * (AT_ONCE + 10)
    assert failed_attempts(logs) == [1]


async def test_each_call_fails_while_the_database_is_unavailable_and_succeeds_afterwards(
    served: Clients, database_url: str, observer: Observer
) -> None:
    user = await served.create_user()
    with capture_logs() as logs:
        async with holding(database_url, LOCK_USERS):
            gets = [getting(served, user.id) for _ in range(10)]
            async with asyncio.timeout(60):
                while not all(caller.done() for caller in gets):
                    await observer.terminate(await observer.backends(waiting=True))
                    await asyncio.sleep(0.01)
            _, failures = await settled(*gets)
            assert {(failure.code, failure.reason) for failure in failures} == {
                (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            }
            assert len(failures) == 10
        assert await get(served, user.id) == user
    assert sorted(failed_attempts(logs)) == [1] * 10 + [2] * 10


async def test_a_server_that_stops_waits_for_its_statements(database_url: str, observer: Observer) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        user = await clients.create_user()
        with capture_logs() as logs:
            async with holding(database_url, LOCK_USERS):
                caller = getting(clients, user.id)
                await observer.until_waiting(1)
                caller.cancel()
                await asyncio.wait({caller})
                # The server has seen that the caller has gone.
                await eventually(lambda: [line for line in logs if line["event"] == "call"])
                stopping = asyncio.ensure_future(server.stop(grace=0))
                done, _ = await asyncio.wait({stopping}, timeout=0.5)
                assert not done
                assert await observer.backends(waiting=True)
            async with asyncio.timeout(20):
                await stopping
            # And its statement has ended in the database.
            await eventually(lambda: all_gone(observer))
    assert [line for line in logs if line["log_level"] in {"error", "warning"}] == []


async def all_gone(observer: Observer) -> bool:
    return not await observer.backends()


async def test_orders_are_read_together_for_transitions(served: Clients, database_url: str, observer: Observer) -> None:
    user = await served.create_user()
    orders = [await served.create_order(user.id) for _ in range(20)]
    with sent_statements() as sent:
        async with holding(database_url, "LOCK TABLE orders"):
            transitions = []
            for count in range(1, AT_ONCE + 1):
                transitions.append(confirming(served, orders[count - 1].id))
                await observer.until_waiting(count)
            transitions += [confirming(served, order.id) for order in orders[AT_ONCE:]]
            await all_have_come(served, "ConfirmOrder", len(orders))
            assert len(await observer.backends(waiting=True)) == AT_ONCE
        answers = await asyncio.gather(*transitions)
    assert [(answer.order.id, answer.order.etag) for answer in answers] == [(order.id, "v2") for order in orders]
    reads = [values for statement, values in sent if statement == ENCODED_ORDERS_BY_IDS.text]
    assert sorted(asked(values) for values in reads) == [*[1] * AT_ONCE, len(orders) - AT_ONCE]


def confirming(clients: Clients, order_id: str) -> "asyncio.Future[orders_pb.ConfirmOrderResponse]":
    return asyncio.ensure_future(clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id)))
