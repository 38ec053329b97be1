"""Failures of PostgreSQL: errors that ask for a retry, broken connections, connections lost during commit."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.support.clients import Clients, item, new_order
from tests.support.databases import Observer, driver_connection
from tests.support.failures import fails
from tests.support.locks import COMMIT_WAITS, CREATE_ORDER, HOLD_COMMITS, holding
from tests.support.proxies import COMMIT, proxy_to
from tests.support.requests import user_with_credit
from tests.support.servers import serving_clients
from tests.support.waiting import eventually

LOCK_USER = "SELECT FROM users WHERE id = $1 FOR UPDATE"
MARKER = "cart-to-lose"

# Fails the first orders with a serialization failure; the sequence counts them, because it does not roll back.
REFUSE_ORDERS = """
CREATE SEQUENCE attempts;
CREATE FUNCTION refuse_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') <= {count} THEN
        RAISE EXCEPTION 'try again' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER refuse_orders BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse_orders()
"""


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def holding_user(database_url: str, user_id: str) -> AbstractAsyncContextManager[object]:
    return holding(database_url, LOCK_USER, UUID(user_id))


def failed_attempts(logs: list[EventDict]) -> list[int]:
    return [line["attempt"] for line in logs if line["event"] == "retrying"]


def with_request_id(user_id: str, **fields: bool) -> pb.CreateOrderRequest:
    return pb.CreateOrderRequest(order=to_lose(user_id), request_id=str(uuid4()), **fields)


def to_lose(user_id: str) -> Order:
    """Return an order that the proxy recognises in the messages to PostgreSQL."""
    return new_order(user_id, items=[item("anvil", 1, 1)], external_ref=MARKER)


async def assert_written_once(
    observer: Observer, request: pb.CreateOrderRequest, answer: pb.CreateOrderResponse
) -> None:
    assert await observer.count("orders") == 1
    assert await observer.count("orders", "id = $1", UUID(answer.order.id)) == 1
    stored = "SELECT response FROM request_ids WHERE request_id = $1"
    assert await observer.connection.fetchval(stored, UUID(request.request_id)) == answer.SerializeToString()


async def assert_nothing_written(observer: Observer) -> None:
    for table in ("orders", "order_items", "request_ids"):
        assert await observer.count(table) == 0
    assert await observer.count("events", "aggregate_type = 'order'") == 0


async def test_a_call_that_is_the_victim_of_a_deadlock_is_retried(
    database_url: str, observer: Observer, logs: list[EventDict]
) -> None:
    name = await observer.connection.fetchval("SELECT current_database()")
    await observer.connection.execute(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '50ms'")
    async with serving_clients(database_url) as clients:
        user_id = await user_with_credit(clients)
        # In a transaction: the fast path waits for no lock while it holds any but the user's.
        request = with_request_id(user_id, pay_with_credit=True)
        async with holding(database_url, "LOCK TABLE events IN SHARE MODE") as other:
            async with holding_user(database_url, user_id):
                call = asyncio.ensure_future(clients.orders.CreateOrder(request))
                # The call has claimed its request id, and waits for the user.
                await observer.until_waiting(1)
                # The session that detects a deadlock becomes its victim: never the other one.
                await other.execute("SET LOCAL deadlock_timeout = '1h'")
                claim = asyncio.ensure_future(
                    other.execute(
                        "INSERT INTO request_ids (caller, method, request_id, body_digest)"
                        " VALUES ('anonymous', $1, $2, '')",
                        CREATE_ORDER,
                        UUID(request.request_id),
                    )
                )
                await eventually(
                    lambda: observer.connection.fetchval(
                        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", other.get_server_pid()
                    )
                )
            # Now the call waits for `events`: a deadlock.
            await claim
            await other.execute("DELETE FROM request_ids")
        answer = await call
    assert failed_attempts(logs) == [1]
    await assert_written_once(observer, request, answer)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_serialization_failure_is_retried(
    database_url: str, observer: Observer, logs: list[EventDict], count: int
) -> None:
    await observer.connection.execute(REFUSE_ORDERS.format(count=count))
    async with serving_clients(database_url) as clients:
        request = with_request_id((await clients.create_user()).id)
        answer = await clients.orders.CreateOrder(request)
    # The first failure is that of the fast path; the call then runs in a transaction.
    assert failed_attempts(logs) == list(range(1, count))
    await assert_written_once(observer, request, answer)


async def test_serialization_failures_without_end_are_given_up(database_url: str, observer: Observer) -> None:
    await observer.connection.execute(REFUSE_ORDERS.format(count=1000))
    async with serving_clients(database_url) as clients:
        request = with_request_id((await clients.create_user()).id)
        with fails(grpc.StatusCode.ABORTED, "CONTENTION") as failure:
            await clients.orders.CreateOrder(request)
    assert failure.details[RetryInfo] == RetryInfo(retry_delay=Duration(nanos=200_000_000))
    assert await observer.connection.fetchval("SELECT last_value FROM attempts") == 1 + 3
    await assert_nothing_written(observer)


async def test_a_write_survives_the_death_of_its_connection(
    database_url: str, observer: Observer, logs: list[EventDict]
) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        async with holding_user(database_url, user.id):
            call = asyncio.ensure_future(clients.create_order(user.id))
            killed = await observer.until_waiting(1)
            await observer.terminate(killed)
            assert not await observer.until_waiting(1) & killed
        order = await call
    assert failed_attempts(logs) == [1]
    assert await observer.count("orders", "id = $1", UUID(order.id)) == await observer.count("orders") == 1


async def test_a_read_survives_the_death_of_its_connection(
    database_url: str, observer: Observer, logs: list[EventDict]
) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        async with holding(database_url, "LOCK TABLE users"):
            call = asyncio.ensure_future(clients.users.GetUser(users_pb.GetUserRequest(id=user.id)))
            killed = await observer.until_waiting(1)
            await observer.terminate(killed)
            assert not await observer.until_waiting(1) & killed
        assert (await call).user == user
    assert failed_attempts(logs) == [1]


async def test_a_call_whose_connections_keep_breaking_fails_as_database_unavailable(
    database_url: str, observer: Observer
) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        async with holding_user(database_url, user.id):
            call = asyncio.ensure_future(clients.create_order(user.id))
            for _ in range(3):
                await observer.terminate(await observer.until_waiting(1))
            with fails(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE") as failure:
                await call
    assert failure.details[RetryInfo] == RetryInfo(retry_delay=Duration(seconds=1))
    await assert_nothing_written(observer)


async def test_no_call_fails_when_all_idle_connections_were_killed(database_url: str, observer: Observer) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        for concurrently in (False, True):
            await open_ten_connections(clients, observer, database_url, user)
            await observer.terminate(await observer.backends())
            gets = [partial(clients.users.GetUser, request) for request in both_keys(user)] * 5
            creates = [partial(clients.create_order, user.id)] * 10
            calls = [call for pair in zip(gets, creates, strict=True) for call in pair]
            if concurrently:
                await asyncio.gather(*(call() for call in calls))
            else:
                for call in calls:
                    await call()
    assert await observer.count("orders") == 20


def both_keys(user: User) -> list[users_pb.GetUserRequest]:
    """Return requests for a user: by id, which is batched, and by name, which is not."""
    return [users_pb.GetUserRequest(id=user.id), users_pb.GetUserRequest(username=user.username)]


async def open_ten_connections(clients: Clients, observer: Observer, database_url: str, user: User) -> None:
    async with holding(database_url, "LOCK TABLE users"):
        get = partial(clients.users.GetUser, users_pb.GetUserRequest(username=user.username))
        calls = [asyncio.ensure_future(get()) for _ in range(10)]
        await observer.until_waiting(10)
    await asyncio.gather(*calls)


async def test_a_connection_that_ends_while_it_is_idle_is_not_used_though_it_is_still_open(
    database_url: str, observer: Observer
) -> None:
    async with proxy_to(database_url) as proxy, serving_clients(proxy.url) as clients:
        user = await clients.create_user()
        proxy.keeps_open = True
        for request in both_keys(user):
            await observer.terminate(await observer.backends())
            assert (await clients.users.GetUser(request)).user == user
        await observer.terminate(await observer.backends())
        await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user.id))
        await proxy.refuse()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users ADD COLUMN nickname text",
        "ALTER TABLE orders ALTER COLUMN tracking_number TYPE varchar(300)",
        "ALTER TABLE users ALTER COLUMN superuser DROP NOT NULL",
    ],
    ids=["add column", "change type", "drop not null"],
)
async def test_no_call_fails_on_a_compatible_change_of_the_schema(
    database_url: str, observer: Observer, change: str
) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        await clients.create_order(user.id)
        # Each connection with its prepared statements.
        await open_ten_connections(clients, observer, database_url, user)
        await asyncio.gather(*(clients.create_order(user.id) for _ in range(20)))
        await observer.connection.execute(change)
        gets = [clients.users.GetUser(request) for request in both_keys(user) * 10]
        assert [answer.user for answer in await asyncio.gather(*gets)] == [user] * 20
        orders = await asyncio.gather(*(clients.create_order(user.id) for _ in range(20)))
        confirms = [clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id)) for order in orders]
        assert {answer.order.etag for answer in await asyncio.gather(*confirms)} == {"v2"}


async def test_a_backend_killed_in_commit_leaves_the_outcome_unknown(database_url: str, observer: Observer) -> None:
    await observer.connection.execute(COMMIT_WAITS)
    async with serving_clients(database_url) as clients:
        request = pb.CreateOrderRequest(order=to_lose(await user_with_credit(clients)), pay_with_credit=True)
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.ensure_future(clients.orders.CreateOrder(request))
            await observer.terminate(await observer.until_waiting(1))
            with fails(grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN"):
                await call
    await assert_nothing_written(observer)


async def test_a_backend_killed_in_the_commit_of_one_statement_is_known_to_have_done_nothing(
    database_url: str, observer: Observer, logs: list[EventDict]
) -> None:
    await observer.connection.execute(COMMIT_WAITS)
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.ensure_future(clients.create_order(user.id))
            # The statement fails because its backend ends before the commit, so the service sends it again.
            await observer.terminate(await observer.until_waiting(1))
            await observer.until_waiting(1)
            assert await observer.count("orders") == 0
        order = await call
    assert failed_attempts(logs) == [1]
    assert await observer.count("orders", "id = $1", UUID(order.id)) == await observer.count("orders") == 1


both_ways = pytest.mark.parametrize("with_credit", [False, True], ids=["fast path", "transaction"])


@both_ways
async def test_a_backend_killed_in_commit_costs_a_call_with_a_request_id_nothing(
    database_url: str, observer: Observer, logs: list[EventDict], *, with_credit: bool
) -> None:
    await observer.connection.execute(COMMIT_WAITS)
    async with serving_clients(database_url) as clients:
        request = with_request_id(await user_with_credit(clients), pay_with_credit=with_credit)
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.ensure_future(clients.orders.CreateOrder(request))
            await observer.terminate(await observer.until_waiting(1))
        answer = await call
    assert failed_attempts(logs) == [1]
    await assert_written_once(observer, request, answer)


def lost(*, with_credit: bool) -> bytes:
    """Return bytes of the message whose answer confirms the commit."""
    return COMMIT if with_credit else MARKER.encode()


every_loss = pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])


@every_loss
@both_ways
async def test_a_lost_answer_to_commit_leaves_the_outcome_unknown(
    database_url: str, observer: Observer, *, with_credit: bool, resets: bool
) -> None:
    async with proxy_to(database_url) as proxy, serving_clients(proxy.url) as clients:
        order = to_lose(await user_with_credit(clients))
        proxy.lose_answer_to, proxy.resets = lost(with_credit=with_credit), resets
        with fails(grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN"):
            await clients.orders.CreateOrder(pb.CreateOrderRequest(order=order, pay_with_credit=with_credit))
        assert not proxy.lose_answer_to
    # The commit had happened, so another run would have created a second order.
    assert await observer.count("orders") == 1


@every_loss
@both_ways
async def test_a_lost_answer_to_commit_is_found_again_by_its_request_id(
    database_url: str, observer: Observer, logs: list[EventDict], *, with_credit: bool, resets: bool
) -> None:
    async with proxy_to(database_url) as proxy, serving_clients(proxy.url) as clients:
        request = with_request_id(await user_with_credit(clients), pay_with_credit=with_credit)
        proxy.lose_answer_to, proxy.resets = lost(with_credit=with_credit), resets
        answer = await clients.orders.CreateOrder(request)
        assert await clients.orders.CreateOrder(request) == answer
    assert failed_attempts(logs) == [1]
    await assert_written_once(observer, request, answer)


@both_ways
async def test_an_outcome_stays_unknown_when_the_database_does_not_come_back(
    database_url: str, observer: Observer, *, with_credit: bool
) -> None:
    async with proxy_to(database_url) as proxy, serving_clients(proxy.url) as clients:
        request = with_request_id(await user_with_credit(clients), pay_with_credit=with_credit)
        proxy.lose_answer_to, proxy.close_after_loss = lost(with_credit=with_credit), True
        with fails(grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN"):
            await clients.orders.CreateOrder(request)
        await proxy.listen()
        answer = await clients.orders.CreateOrder(request)
    await assert_written_once(observer, request, answer)


async def test_a_database_out_of_reach_is_unavailable_to_reads_and_writes(database_url: str) -> None:
    async with proxy_to(database_url) as proxy, serving_clients(proxy.url) as clients:
        user = await clients.create_user()
        await proxy.refuse()
        with fails(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
            await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        with fails(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
            await clients.create_order(user.id, items=[item("anvil", 1, 1)])
        await proxy.listen()
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user == user


async def test_a_database_that_takes_no_connections_is_unavailable(
    postgres_url: str, database_url: str, observer: Observer
) -> None:
    async with serving_clients(database_url) as clients, driver_connection(postgres_url) as admin:
        user = await clients.create_user()
        name = await observer.connection.fetchval("SELECT current_database()")
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await observer.terminate(await observer.backends())
        with fails(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
            await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user == user
