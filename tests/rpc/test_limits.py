"""The limits of a process that keep one caller from costing the others: calls, request bytes and watches in flight."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.order_pb2 import Order
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from hyperframe.frame import SettingsFrame

from service.rpc.interceptors import validation
from service.rpc.messages import wire_sizes
from tests.support.clients import Clients, connect, item
from tests.support.databases import cloned, observing
from tests.support.failures import fails, settled
from tests.support.http2 import Connection, call_frames, call_headers, static_block
from tests.support.large_rows import insert_users
from tests.support.locks import holding
from tests.support.logs import Log
from tests.support.methods import call_bytes, path_of
from tests.support.sent_statements import sent_statements
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually
from tests.support.watching import watch_orders, watch_users

HEALTH = "/grpc.health.v1.Health"


def padded(request: Any, size: int) -> bytes:
    """Return the bytes of a request with an unknown field, which makes them longer by this size."""
    # Field 15000: its tag, its length in five bytes, and its content.
    length = b"".join(bytes([size >> shift & 0x7F | (0x80 if shift < 28 else 0)]) for shift in range(0, 35, 7))
    encoded: bytes = request.SerializeToString()
    return encoded + b"\xc2\xa9\x07" + length + b"x" * size


async def health_is_answered(clients: Clients) -> None:
    assert (await clients.health.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
    watch = clients.health.Watch(HealthCheckRequest(service="readiness"))
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()
    listed: Any = clients.channel.unary_unary(
        f"{HEALTH}/List",
        response_deserializer=health_pb2.HealthListResponse.FromString,  # type: ignore[attr-defined] # no stubs
    )
    assert (await listed(b"")).statuses


async def deactivate(clients: Clients, user_id: str, size: int = 0) -> bytes:
    """Deactivate a user, with a request of about this size."""
    return await call_bytes(clients.channel, "DeactivateUser", padded(users_pb.DeactivateUserRequest(id=user_id), size))


async def get(clients: Clients, user_id: str, size: int) -> bytes:
    """Get a user, with a request of about this size."""
    return await call_bytes(clients.channel, "GetUser", padded(users_pb.GetUserRequest(id=user_id), size))


async def test_calls_above_the_limit_are_told_when_to_retry_and_health_is_answered(database_url: str) -> None:
    async with (
        serving_clients(database_url, max_concurrent_calls=3) as clients,
        observing(database_url) as observer,
    ):
        user = await clients.create_user()
        async with watch_orders(clients, now=True) as watch:
            await watch.checkpoint()
            async with holding(database_url, "SELECT FROM users FOR UPDATE"):
                calls = [asyncio.ensure_future(deactivate(clients, user.id)) for _ in range(2)]
                await observer.until_waiting(2)
                for _ in range(40):
                    with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
                    assert RetryInfo in failure.details
                with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                    async for _ in clients.orders.ExportOrders(orders_pb.ExportOrdersRequest()):
                        pass
                with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                    await clients.users.ImportUsers(iter([users_pb.ImportUsersRequest()]))
                for _ in range(20):
                    await health_is_answered(clients)
            await asyncio.wait(calls)
        await eventually(lambda: is_accepted(clients.users.GetUser(users_pb.GetUserRequest(id=user.id))))


async def is_accepted(call: Awaitable[object]) -> bool:
    """Wait for a call; return whether it was not refused."""
    answers, failures = await settled(call)
    assert {failure.reason for failure in failures} <= {"OVERLOADED"}
    return bool(answers)


async def test_large_requests_in_flight_are_limited_together_and_small_ones_go_on(database_url: str) -> None:
    settings = {"max_request_bytes_in_flight": 100_000}
    async with serving_clients(database_url, **settings) as clients, observing(database_url) as observer:
        users = [await clients.create_user() for _ in range(4)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            large = asyncio.ensure_future(deactivate(clients, users[0].id, 60_000))
            await observer.until_waiting(1)
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                await deactivate(clients, users[1].id, 60_000)
            assert RetryInfo in failure.details
            # Neither the refused request nor small ones count.
            others = [asyncio.ensure_future(deactivate(clients, users[2].id, 30_000))]
            others += [asyncio.ensure_future(deactivate(clients, users[3].id)) for _ in range(3)]
            await observer.until_waiting(5)
            large.cancel()
            await observer.until_waiting(5)
            # The call has ended for its client, and its place is free.
            await eventually(lambda: is_accepted(get(clients, users[1].id, 60_000)))
            for other in others:
                other.cancel()
        # One request may always be as large as requests may be.
        await eventually(lambda: is_accepted(get(clients, users[1].id, 2_000_000)))


async def test_large_requests_that_arrive_together_are_read_one_in_a_turn_of_the_event_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, began = 0, list[int]()
    violations = wire_sizes.size_violations

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def read(*args: Any) -> Any:
        began.append(turn)
        return violations(*args)

    monkeypatch.setattr(validation, "size_violations", read)
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        request = users_pb.BatchGetUsersRequest(ids=[user.id] * 200)
        counting = asyncio.ensure_future(count_turns())
        answers = await asyncio.gather(*(clients.users.BatchGetUsers(request) for _ in range(20)))
        counting.cancel()
    assert {len(answer.users) for answer in answers} == {200}
    assert len(set(began)) == len(began) == 20


class SilentReader:
    """A client that lets the server send the headers of responses, and nothing more."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})

    def call(self, method: str, request: Message) -> None:
        stream, headers = self._connection.take_stream(), static_block(call_headers(path_of(method)))
        self._connection.send(call_frames(stream, headers, request.SerializeToString()))

    def read(self, frame: str) -> int:
        """Return how many frames of a type have been received; raises OSError if the server has disconnected."""
        self._connection.read()
        return self._connection.received[frame]

    async def answers(self, count: int) -> None:
        """Wait until this many calls have been answered, and none refused: that would be a call without a message."""
        await eventually(lambda: self.read("Headers") >= count)
        assert self.read("Headers") == count

    def close(self) -> None:
        self._connection.close()


@asynccontextmanager
async def large_order(database_url: str, **settings: object) -> AsyncIterator[tuple[int, Clients, Order]]:
    """Run a server on which three responses with this order fit into the part of a caller, and four do not."""
    items = [item(f"product-{number}", 1, 1) for number in range(300)]
    async with serving_clients(database_url) as clients:
        order = await clients.create_order((await clients.create_user()).id, items=items)
    size = orders_pb.GetOrderResponse(order=order).ByteSize()
    # Half of it is for one caller, and everybody is the same caller here. Tags make the order a little larger.
    async with (
        running_server(database_url, max_unread_response_bytes=7 * size, **settings) as server,
        connect(server.port) as clients,
    ):
        yield server.port, clients, order


async def test_large_responses_that_nobody_reads_are_limited_together_and_small_ones_go_on(database_url: str) -> None:
    async with large_order(database_url) as (port, clients, large):
        small = await clients.create_order(large.user_id)
        get_large, get_small = (orders_pb.GetOrderRequest(id=order.id) for order in (large, small))
        reader = SilentReader(port)
        for _ in range(3):
            reader.call("GetOrder", get_large)
        await reader.answers(3)
        for _ in range(3):
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                await clients.orders.GetOrder(get_large)
            assert RetryInfo in failure.details
        # Neither the refused responses nor small ones count, and a write is never refused.
        for _ in range(5):
            await clients.orders.GetOrder(get_small)
        tagged = await clients.orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=large.id, tags=["seen"]))
        assert list(tagged.order.tags) == ["seen"]
        reader.close()
        await eventually(lambda: is_accepted(clients.orders.GetOrder(get_large)))
        # The responses of writes count.
        writer = SilentReader(port)
        for number in range(4):
            writer.call("AddOrderTags", orders_pb.AddOrderTagsRequest(id=large.id, tags=[f"tag-{number}"]))
        await writer.answers(4)
        with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
            await clients.orders.GetOrder(get_large)
        writer.close()
        await eventually(lambda: is_accepted(clients.orders.GetOrder(get_large)))


async def test_no_large_page_is_read_for_a_caller_who_does_not_read(postgres_url: str, template_url: str) -> None:
    async with cloned(postgres_url, template_url) as url:
        await insert_users(url, 200)
        # Two such pages of about 220 kB fit into the part of a caller.
        settings = {"max_unread_response_bytes": 1_000_000, "max_connection_age": 0}
        async with running_server(url, **settings) as server, connect(server.port) as clients:
            page = users_pb.ListUsersRequest(page_size=200)
            reader = SilentReader(server.port)
            for _ in range(2):
                reader.call("ListUsers", page)
            await reader.answers(2)
            with sent_statements() as sent:
                for _ in range(3):
                    with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                        await clients.users.ListUsers(page)
                # The first, of which the server did not know how large it is.
                assert len(sent) == 1
                await clients.users.ListUsers(users_pb.ListUsersRequest(page_size=10))
            reader.close()
            await eventually(lambda: is_accepted(clients.users.ListUsers(page)))


async def test_one_response_may_be_as_large_as_responses_may_be(database_url: str) -> None:
    async with serving_clients(database_url, max_unread_response_bytes=1) as clients:
        items = [item(f"product-{number}", 1, 1) for number in range(300)]
        order = await clients.create_order((await clients.create_user()).id, items=items)
        await eventually(lambda: is_accepted(clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id))))


async def test_responses_count_until_their_calls_are_cancelled(database_url: str, log: Log) -> None:
    async with large_order(database_url, transfer_timeout=1, max_connection_age=0) as (port, clients, large):
        request = orders_pb.GetOrderRequest(id=large.id)
        reader = SilentReader(port)
        for _ in range(3):
            reader.call("GetOrder", request)
        cancelled = "cancelled calls whose clients neither sent nor read in time"
        # Reading, because gRPC closes the connection of a client that does not answer its pings.
        await eventually(lambda: reader.read("Headers") and log.lines(event=cancelled))
        await eventually(lambda: is_accepted(clients.orders.GetOrder(request)))
        # It was not the end of their connection that ended them: gRPC has reset them, and freed their memory.
        await eventually(lambda: reader.read("RstStream") >= 2)
        reader.close()


@pytest.mark.parametrize("method", ["WatchUsers", "WatchOrders", "ExportUsers", "ExportOrders"])
async def test_a_request_for_a_stream_is_small(clients: Clients, method: str) -> None:
    service = "users.v1.User" if method.endswith("Users") else "orders.v1.Order"
    stub: Any = clients.channel.unary_stream(f"/commerce.{service}Service/{method}")
    request = {"WatchUsers": users_pb.WatchUsersRequest, "WatchOrders": orders_pb.WatchOrdersRequest}.get(method)
    start = request(now=True) if request else users_pb.ExportUsersRequest()
    accepted = stub(padded(start, validation.MAX_STREAM_REQUEST_BYTES - 100))
    assert await accepted.read() is not None
    accepted.cancel()
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=""):
        async for _ in stub(padded(start, validation.MAX_STREAM_REQUEST_BYTES)):
            pass


async def test_a_request_to_watch_health_is_small(clients: Clients) -> None:
    watch: Any = clients.channel.unary_stream(f"{HEALTH}/Watch")
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=""):
        async for _ in watch(padded(HealthCheckRequest(), 1_000_000)):
            pass


async def test_watches_above_the_limit_are_told_when_to_retry(database_url: str) -> None:
    async with serving_clients(database_url, max_watches=2) as clients:
        user = await clients.create_user()
        async with watch_users(clients, earliest=True) as first, watch_orders(clients, now=True) as second:
            await second.checkpoint()
            assert len(await first.events(1)) == 1
            for _ in range(3):
                with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                    async for _ in clients.users.WatchUsers(users_pb.WatchUsersRequest(earliest=True)):
                        pass
                assert RetryInfo in failure.details
            await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))

            second.call.cancel()
            await eventually(lambda: is_accepted(first_event(clients)))


async def first_event(clients: Clients) -> Any:
    async with watch_users(clients, earliest=True) as stream:
        return await stream.events(1)
