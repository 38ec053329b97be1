"""Calls while servers stop, start, refuse, hang or vanish."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from commerce.client import NO_RETRIES, Client, ClientClosed, Outcome, RetryPolicy
from commerce.client.errors import ClientTimeout, InvalidCredentials, Overloaded, SignInLimit, Unavailable

from tests.support.both_clients import ITEM, BothClients, Kind, both_clients
from tests.support.clients import connect
from tests.support.databases import Observer, observing
from tests.support.locks import COMMIT_WAITS, HOLD_COMMITS, holding
from tests.support.logs import Log
from tests.support.processes import free_port, serving
from tests.support.proxies import Forwarder
from tests.support.servers import running_server
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

ORDERS = 240
WRONG = "not the password"
# A server that is asked to stop lets its callers go for about this long.
QUICK: dict[str, Any] = {"max_connection_age": 1, "shutdown_grace": 2}


async def place_orders(both: BothClients, user_id: str, done: list[int]) -> None:
    """Place many orders, eight at a time; notes each in `done`."""

    def order(number: int) -> Callable[[Any], Any]:
        return lambda client: client.orders.create(user_id=user_id, external_ref=f"order-{number}", items=[ITEM])

    def in_a_thread(number: int) -> None:
        order(number)(both.client)
        done.append(number)

    async def in_tasks(numbers: "asyncio.Queue[int]") -> None:
        while not numbers.empty():
            number = numbers.get_nowait()
            await order(number)(both.client)
            done.append(number)

    if both.kind == "sync":
        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, in_a_thread, number) for number in range(ORDERS)))
    else:
        numbers: asyncio.Queue[int] = asyncio.Queue()
        for number in range(ORDERS):
            numbers.put_nowait(number)
        await asyncio.gather(*(in_tasks(numbers) for _ in range(8)))


@pytest.mark.parametrize(("kind", "how"), [("sync", signal.SIGKILL), ("asyncio", signal.SIGTERM)])
async def test_a_server_that_starts_again_loses_no_order_and_doubles_none(
    kind: Kind, how: signal.Signals, database_url: str
) -> None:
    port, done = free_port(), list[int]()
    async with serving(database_url, port, **QUICK) as first, both_clients(kind, port) as both:
        user = await both.create_user()
        placing = asyncio.create_task(place_orders(both, user.id, done))
        await eventually(lambda: len(done) > ORDERS // 4)
        first.send(how)
        await first.end()
        assert not placing.done()
        async with serving(database_url, port):
            await placing
            orders = await both.items(lambda client: client.orders.list(user_id=user.id, page_size=1000))
            assert sorted(order.external_ref for order in orders) == sorted(f"order-{n}" for n in range(ORDERS))


@asynccontextmanager
async def full_server(database_url: str, kind: Kind, **options: Any) -> AsyncIterator[tuple[BothClients, Any]]:
    """Run a server that has no room for another call; yields a client, and what ends the call that fills it."""
    async with (
        running_server(database_url, max_concurrent_calls=1) as server,
        connect(server.port, own_connection=True) as others,
        both_clients(kind, server.port, **options) as both,
        watch_orders(others, now=True) as watch,
    ):
        await watch.checkpoint()
        yield both, watch


async def test_the_push_back_of_an_overloaded_server_is_obeyed(kind: Kind, database_url: str) -> None:
    async with full_server(database_url, kind) as (both, _):
        began = time.monotonic()
        with pytest.raises(Overloaded) as refused:
            await both.call(lambda client: client.users.get(username="ada", timeout=1.8))
        took = time.monotonic() - began
    # The server asks for half a second or more before each further attempt, and for 1.5 s at most. When the time left
    # is shorter, the call fails without waiting.
    attempts = refused.value.failure.attempts
    assert 2 <= attempts <= 4
    assert 0.5 * (attempts - 1) <= took < 1.8
    assert refused.value.outcome is Outcome.NOT_WRITTEN


async def test_a_call_without_time_for_a_retry_fails_with_what_the_server_said(kind: Kind, database_url: str) -> None:
    async with full_server(database_url, kind) as (both, _):
        with pytest.raises(Overloaded) as refused:
            await both.call(lambda client: client.users.get(username="ada", timeout=0.45))
        assert refused.value.failure.attempts == 1


async def test_a_mutation_without_a_request_id_is_repeated_if_it_was_refused(database_url: str) -> None:
    def sign_in(client: Any) -> Any:
        policy = RetryPolicy(max_attempts=2)
        return client.users.verify_password(username="nobody", password=WRONG, timeout=60, retry=policy)

    async with full_server(database_url, "asyncio") as (both, _):
        with pytest.raises(Overloaded) as refused:
            await both.call(sign_in)
        assert refused.value.failure.attempts == 2


async def test_a_pause_between_attempts_to_sign_in_is_left_to_the_caller(both: BothClients) -> None:
    def sign_in(client: Any) -> Any:
        return client.users.verify_password(username="nobody-here", password=WRONG)

    async def until_limited() -> None:
        for _ in range(10):
            with suppress(InvalidCredentials):
                await both.call(sign_in)

    with pytest.raises(SignInLimit) as limited:
        await until_limited()
    assert limited.value.failure.attempts == 1
    assert limited.value.retry_after


@asynccontextmanager
async def forwarded_server(
    database_url: str, kind: Kind, **options: Any
) -> AsyncIterator[tuple[BothClients, Forwarder]]:
    """Run a server behind a port that can break or silence connections; yields a client, and that port."""
    async with running_server(database_url) as server:
        forwarder = Forwarder(lambda: asyncio.open_connection("127.0.0.1", server.port))
        await forwarder.listen()
        try:
            async with both_clients(kind, forwarder.port, **options) as both:
                yield both, forwarder
        finally:
            await forwarder.refuse()


async def test_the_time_limit_covers_all_attempts_together(kind: Kind, database_url: str) -> None:
    async with forwarded_server(database_url, kind) as (both, forwarder):
        user = await both.create_user()
        forwarder.fall_silent(new_too=True)
        began = time.monotonic()
        with pytest.raises(ClientTimeout) as late:
            await both.call(lambda client: client.users.deactivate(user.id, timeout=0.8, attempt_timeout=0.25))
        took = time.monotonic() - began
    # Not once for each attempt.
    assert 0.7 < took < 2 * 0.8
    assert late.value.failure.attempts >= 2
    assert late.value.outcome is Outcome.UNKNOWN
    assert isinstance(late.value, TimeoutError)


async def test_without_retries_a_lost_connection_is_an_error_with_an_unknown_outcome(
    kind: Kind, database_url: str
) -> None:
    async with (
        forwarded_server(database_url, kind, retry=NO_RETRIES) as (both, forwarder),
        observing(database_url) as observer,
    ):
        user = await both.create_user()
        await observer.connection.execute(COMMIT_WAITS)
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.create_task(both.create_order(user.id))
            await observer.until_waiting(1)
            await forwarder.refuse()
            with pytest.raises(Unavailable) as lost:
                await call
        assert (lost.value.outcome, lost.value.failure.attempts) == (Outcome.UNKNOWN, 1)


async def test_a_call_whose_answer_was_lost_during_its_commit_is_done_once(kind: Kind, database_url: str) -> None:
    async with forwarded_server(database_url, kind) as (both, forwarder), observing(database_url) as observer:
        user = await both.create_user()
        await observer.connection.execute(COMMIT_WAITS)
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.create_task(both.create_order(user.id))
            await observer.until_waiting(1)
            await forwarder.refuse()
        await eventually(lambda: observer.count("orders"))
        assert not call.done()
        await forwarder.listen()
        assert (await call).user_id == user.id
        assert await observer.count("orders") == 1


async def test_a_server_that_cannot_be_reached_is_unavailable(kind: Kind) -> None:
    async with both_clients(kind, free_port()) as both:
        with pytest.raises((Unavailable, ClientTimeout)) as failed:
            await both.call(lambda client: client.users.get(username="ada", timeout=0.5))
        # Either way, it says why.
        reason = failed.value if isinstance(failed.value, Unavailable) else failed.value.__cause__
        assert isinstance(reason, Unavailable)
        assert "Connection refused" in str(reason)
        with pytest.raises(Unavailable, match="Connection refused"):
            await both.call(lambda client: client.users.get(username="ada", retry=NO_RETRIES))


@asynccontextmanager
async def own_client(database_url: str, kind: Kind) -> AsyncIterator[tuple[BothClients, Observer]]:
    """Run a server; yields a client of it, and an observer of its database."""
    async with (
        running_server(database_url) as server,
        observing(database_url) as observer,
        both_clients(kind, server.port) as both,
    ):
        yield both, observer


async def test_closing_waits_for_the_calls_that_run(kind: Kind, database_url: str) -> None:
    async with own_client(database_url, kind) as (both, observer):
        user = await both.create_user()
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            call = asyncio.create_task(both.call(lambda client: client.users.deactivate(user.id)))
            await observer.until_waiting(1)
            closing = asyncio.create_task(both.call(lambda client: client.close()))
            await asyncio.sleep(0.2)
            assert not closing.done()
            with pytest.raises(ClientClosed):
                await both.call(lambda client: client.users.get(user.id))
        await closing
        assert (await call).id == user.id


async def test_closing_ends_what_takes_longer_than_its_grace(kind: Kind, database_url: str) -> None:
    async with own_client(database_url, kind) as (both, observer):
        user = await both.create_user()
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            call = asyncio.create_task(both.call(lambda client: client.users.deactivate(user.id)))
            await observer.until_waiting(1)
            await both.call(lambda client: client.close(grace=0.1))
            with pytest.raises(Unavailable) as ended:
                await asyncio.wait_for(call, 5)
        assert (ended.value.outcome, ended.value.failure.attempts) == (Outcome.UNKNOWN, 1)


async def test_a_cancelled_call_is_cancelled_at_the_server_and_not_repeated(database_url: str, log: Log) -> None:
    async with own_client(database_url, "asyncio") as (both, observer):
        user = await both.create_user()
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            call = asyncio.create_task(both.call(lambda client: client.users.deactivate(user.id)))
            await observer.until_waiting(1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            ended = await log.line(event="call", method="/commerce.users.v1.UserService/DeactivateUser")
        assert ended["code"] == "CANCELLED"
        assert (await both.call(lambda client: client.users.get(user.id))).id == user.id


def test_a_client_needs_no_event_loop_and_no_server() -> None:
    with Client("127.0.0.1:1") as client:
        assert client.users is client.users
