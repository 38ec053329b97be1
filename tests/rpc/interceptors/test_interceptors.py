import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.users.v1.user_pb2 import UserState
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from sqlalchemy import text

from service.application.ports.errors import (
    Contention,
    DatabaseUnavailable,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
)
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.domain.users import User
from service.rpc.call_context import current_unit_of_work
from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.reflection import add_reflection
from tests.support.clients import new_user
from tests.support.databases import Observer
from tests.support.echo import ARITIES, SERVICE, Echo, call, nothing
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.logs import Log
from tests.support.passwords import PASSWORD
from tests.support.servers import OwnServer, own_server
from tests.support.waiting import eventually

every_arity = pytest.mark.parametrize("arity", ARITIES)


@pytest.fixture(scope="module")
async def own(postgres_url: str, template_url: str, _echo: Echo) -> AsyncIterator[OwnServer]:
    """A server that has the echo service beside its own services."""
    with pytest.MonkeyPatch.context() as patch:

        def add_both(methods: InterceptedMethods, names: Sequence[str]) -> None:
            add_reflection(methods, names)
            methods.add_registered_method_handlers(SERVICE, _echo.handlers())

        # The server adds reflection last, before it listens.
        patch.setattr("service.server.add_reflection", add_both)
        async with own_server(postgres_url, template_url) as own:
            yield own


@pytest.fixture(scope="module")
def _echo() -> Echo:
    return Echo()


@pytest.fixture
def echo(_echo: Echo) -> Iterator[Echo]:
    yield _echo
    _echo.act = nothing


# The four arities


@pytest.mark.parametrize(
    ("arity", "sent", "answered"),
    [
        ("UnaryUnary", ["one"], ["one"]),
        ("UnaryStream", ["one"], ["one", "one", "one"]),
        ("StreamUnary", ["one", "two", "three"], ["one-two-three"]),
        ("StreamStream", ["one", "two", "three"], ["one", "two", "three"]),
        ("StreamStream", [], []),
    ],
)
async def test_messages_pass_unchanged(own: OwnServer, arity: str, sent: list[str], answered: list[str]) -> None:
    assert await call(own.clients.channel, arity, *sent) == answered


@every_arity
async def test_bytes_that_are_no_message_are_refused(own: OwnServer, arity: str) -> None:
    with fails(StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"):
        await call(own.clients.channel, arity, body=b"\x1a\x04\xff\xff\xff\xff")


@every_arity
async def test_a_message_that_breaks_a_rule_is_refused(own: OwnServer, arity: str) -> None:
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="username"):
        await call(own.clients.channel, arity, "No Username")


@every_arity
async def test_a_message_of_too_many_fields_is_refused_before_it_is_parsed(own: OwnServer, arity: str) -> None:
    # The last field is cut off, which only a parser would see.
    body = b"\xf8\x7f\x00" * 20_000 + b"\x0a"
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD") as failure:
        await call(own.clients.channel, arity, body=body)
    assert failure.message == "the request must contain at most 10000 fields and elements"


async def test_a_method_that_does_not_exist_is_unimplemented(own: OwnServer) -> None:
    missing: Any = own.clients.channel.unary_unary(f"/{SERVICE}/Missing")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await missing(b"")
    assert raised.value.code() == StatusCode.UNIMPLEMENTED


# Unknown failures

SECRET = "hunter2-secret"  # noqa: S105 - what must not get out
TELLTALES = (
    *(SECRET, "SELECT", "INSERT", "CAST", "VALUES", "user_passwords"),
    *("UnspeakableError", "RuntimeError", "ExceptionGroup", "DBAPIError", "DataError", "IntegrityError"),
    *("InvalidTextRepresentation", "CheckViolation"),
)


class UnspeakableError(Exception):
    pass


async def raise_chained(_url: str) -> None:
    try:
        raise UnspeakableError(SECRET)
    except UnspeakableError as error:
        raise RuntimeError(f"while doing {SECRET}") from error


async def raise_a_group(_url: str) -> None:
    raise ExceptionGroup(SECRET, [UnspeakableError(SECRET)])


async def send_a_bad_value(url: str) -> None:
    await _execute(url, "SELECT CAST(:value AS integer) AS answer", value=SECRET)


async def send_a_bad_cast(url: str) -> None:
    await _execute(url, f"SELECT CAST('{SECRET}' AS integer) AS answer")


async def break_a_check(url: str) -> None:
    await _execute(url, f"INSERT INTO user_passwords VALUES (gen_random_uuid(), '{SECRET}', now())")


async def _execute(url: str, statement: str, **values: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(statement), values)
    finally:
        await engine.dispose()


async def break_a_check_in_the_unit_of_work() -> None:
    user = User.create({"email": f"{SECRET}@example.com", "username": SECRET}, datetime.now(UTC))
    await current_unit_of_work().users.add(user, password_hash=SECRET)


async def require_told_by_its_id_only(own: OwnServer, log: Log, arity: str) -> None:
    with fails(StatusCode.INTERNAL, "INTERNAL") as failure:
        await call(own.clients.channel, arity, "one")
    assert failure.message == "internal error"
    assert set(failure.metadata) == {"error_id"}
    assert len(failure.details) == 1
    assert UUID(failure.metadata["error_id"]).version == 4
    # One line for the failure, and one for the call; nothing else is logged.
    line = await log.line(error_id=failure.metadata["error_id"])
    assert (line["event"], line["level"], line["method"]) == ("internal error", "error", f"/{SERVICE}/{arity}")
    assert line["x_request_id"] == failure.trailers["x-request-id"]
    assert line["raised"]
    assert (await log.line(event="call", x_request_id=line["x_request_id"]))["code"] == "INTERNAL"
    said = f"{failure.message} {failure.trailers} {log.output.getvalue()}"
    assert [word for word in TELLTALES if word in said] == []


@pytest.mark.parametrize("failure", [raise_chained, raise_a_group, send_a_bad_value, send_a_bad_cast, break_a_check])
@every_arity
async def test_an_unknown_failure_shows_only_its_id(
    own: OwnServer, echo: Echo, log: Log, arity: str, failure: Callable[[str], Awaitable[None]]
) -> None:
    echo.act = lambda: failure(own.database_url)
    await require_told_by_its_id_only(own, log, arity)


async def test_a_failure_of_a_unit_of_work_shows_only_its_id_and_writes_nothing(
    own: OwnServer, echo: Echo, log: Log
) -> None:
    before = await own.versions()
    echo.act = break_a_check_in_the_unit_of_work
    await require_told_by_its_id_only(own, log, "UnaryUnary")
    assert await own.versions() == before
    [line] = log.lines(event="internal error")
    assert line["sqlstate"] == "23514"


async def test_the_log_says_which_of_our_lines_a_failure_of_the_database_came_through(
    own: OwnServer, echo: Echo, log: Log
) -> None:
    echo.act = break_a_check_in_the_unit_of_work
    with fails(StatusCode.INTERNAL, "INTERNAL"):
        await call(own.clients.channel, "UnaryUnary", "one")
    raised = (await log.line(event="internal error"))["raised"]
    assert [frame for frame in raised if frame.startswith("service/db/writes/users.py")]
    # Logged after the status was sent; it must not come into the log of the next test.
    await log.line(event="call")


@every_arity
async def test_a_cancellation_from_inside_is_internal_and_not_a_silence(
    own: OwnServer, echo: Echo, log: Log, arity: str
) -> None:
    async def cancel() -> None:
        raise asyncio.CancelledError

    echo.act = cancel
    async with asyncio.timeout(10):
        with fails(StatusCode.INTERNAL, "INTERNAL") as failure:
            await call(own.clients.channel, arity, "one")
    await log.line(event="internal error", error_id=failure.metadata["error_id"])
    # Logged after the status was sent; it must not come into the log of the next test.
    await log.line(event="call")


@every_arity
async def test_a_caller_that_goes_is_no_failure(own: OwnServer, echo: Echo, log: Log, arity: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    echo.act = wait
    caller = asyncio.create_task(call(own.clients.channel, arity, "one"))
    async with asyncio.timeout(10):
        await reached.wait()
    caller.cancel()
    await asyncio.wait({caller})
    line = await log.line(event="call")
    go_on.set()
    # First, because they say what went wrong.
    assert not log.lines(level="error")
    assert not log.lines(level="warning")
    assert line["code"] == "CANCELLED"


class Held:
    pass


@pytest.mark.parametrize("chained", ["alone", "cause", "context"])
async def test_a_failure_and_its_causes_are_freed_without_the_garbage_collector(
    own: OwnServer, echo: Echo, chained: str
) -> None:
    held: list[weakref.ref[Held]] = []

    async def fail() -> None:
        # This frame has the failure, and the traceback of the failure has this frame.
        something, failure = Held(), UnspeakableError()
        held.append(weakref.ref(something))
        raise failure

    async def fail_again() -> None:
        try:
            await fail()
        except UnspeakableError as error:
            if chained == "cause":
                raise RuntimeError from error
            raise RuntimeError  # noqa: B904 - the first error is only its context

    echo.act = fail if chained == "alone" else fail_again
    gc.disable()
    try:
        with fails(StatusCode.INTERNAL, "INTERNAL"):
            await call(own.clients.channel, "UnaryUnary", "one")
        echo.act = nothing
        await eventually(lambda: held[0]() is None)
    finally:
        gc.enable()


# Failures with their own status


@pytest.mark.parametrize(
    ("error", "code", "reason", "worth_a_retry"),
    [
        (Contention, StatusCode.ABORTED, "CONTENTION", True),
        (DatabaseUnavailable, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", True),
        (OutcomeUnknown, StatusCode.UNKNOWN, "OUTCOME_UNKNOWN", False),
        (DeadlineExceeded, StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", False),
        (Overloaded, StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", True),
    ],
)
@every_arity
async def test_a_failure_of_the_store_has_its_status(
    own: OwnServer,
    echo: Echo,
    arity: str,
    *,
    error: type[Exception],
    code: StatusCode,
    reason: str,
    worth_a_retry: bool,
) -> None:
    async def fail() -> None:
        raise error(SECRET)

    echo.act = fail
    with fails(code, reason) as failure:
        await call(own.clients.channel, arity, "one")
    assert (RetryInfo in failure.details) == worth_a_retry
    assert SECRET not in f"{failure.message} {failure.trailers}"


# x-request-id, and the log line of a call


async def test_an_x_request_id_comes_back_and_is_in_the_line_of_the_call(own: OwnServer, log: Log) -> None:
    user = await own.clients.create_user()
    sent = f"Trace:{uuid4()}/a+b=_."
    answer = own.clients.users.GetUser(pb.GetUserRequest(id=user.id), metadata=(("x-request-id", sent),))
    await answer
    assert ("x-request-id", sent) in tuple(await answer.trailing_metadata() or ())
    line = await log.line(event="call", x_request_id=sent)
    assert (line["method"], line["code"], line["level"]) == ("/commerce.users.v1.UserService/GetUser", "OK", "info")
    assert 0 < line["duration_ms"] < 60_000


async def test_an_x_request_id_comes_back_with_a_failure_too(own: OwnServer, log: Log) -> None:
    with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND") as failure:
        request = pb.GetUserRequest(id=str(uuid4()))
        await own.clients.users.GetUser(request, metadata=(("x-request-id", "trace-1"),))
    assert failure.trailers["x-request-id"] == "trace-1"
    assert (await log.line(event="call", x_request_id="trace-1"))["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "sent", ["", "two words", "a;b", 'a"b', "x" * 129], ids=["empty", "space", "semicolon", "quote", "long"]
)
async def test_a_bad_x_request_id_is_replaced(own: OwnServer, log: Log, sent: str) -> None:
    answer = own.clients.users.ListUsers(pb.ListUsersRequest(), metadata=(("x-request-id", sent),))
    await answer
    [made] = [value for key, value in await answer.trailing_metadata() or () if key == "x-request-id"]
    assert str(UUID(str(made))) == made
    await log.line(event="call", x_request_id=made)


async def test_the_answers_of_health_are_logged_at_debug(own: OwnServer, log: Log) -> None:
    await own.clients.health.Check(HealthCheckRequest())
    assert (await log.line(event="call", method="/grpc.health.v1.Health/Check"))["level"] == "debug"


# Sizes


async def test_a_response_too_large_is_refused_before_anything_is_written(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, max_response_bytes=200) as own:
        small = (await own.clients.create_user(full_name="")).id
        request = pb.CreateUserRequest(user=new_user(full_name="x" * 200), password=PASSWORD, request_id=str(uuid4()))
        before = await own.versions()
        with fails(StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"):
            await own.clients.users.CreateUser(request)
        with fails(StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"):
            await own.clients.users.BatchGetUsers(pb.BatchGetUsersRequest(ids=[small] * 2))
        assert await own.versions() == before
        # The request id is not claimed.
        request.user.full_name = ""
        await own.clients.users.CreateUser(request)


# Deadlines


LOCK_USER = "SELECT FROM users WHERE id = $1 FOR UPDATE"


@pytest.mark.parametrize("callers_deadline", [None, 60], ids=["none", "a_long_one"])
async def test_a_call_gets_the_servers_deadline(
    postgres_url: str, template_url: str, callers_deadline: float | None
) -> None:
    async with own_server(postgres_url, template_url, default_deadline=0.5, db_pool_size=2) as own:
        user = await own.clients.create_user()
        request = pb.DeactivateUserRequest(id=user.id)

        async def fail() -> None:
            with fails(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                await own.clients.users.DeactivateUser(request, timeout=callers_deadline)

        before = await own.versions()
        async with asyncio.timeout(30), holding(own.database_url, LOCK_USER, user.id):
            # More calls than connections.
            await asyncio.gather(*(fail() for _ in range(3)))
            assert await Observer(own.connection).backends(waiting=True) == set()
        assert await own.versions() == before
        assert (await own.clients.users.DeactivateUser(request)).user.state == UserState.USER_STATE_INACTIVE
        await asyncio.gather(*(own.clients.create_user() for _ in range(4)))


async def test_a_callers_own_deadline_ends_its_work(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url) as own:
        user = await own.clients.create_user()
        before = await own.versions()
        async with holding(own.database_url, LOCK_USER, user.id):
            # From the caller's gRPC library, or, if that is late, from the server.
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await own.clients.users.DeactivateUser(pb.DeactivateUserRequest(id=user.id), timeout=0.5)
            assert raised.value.code() == StatusCode.DEADLINE_EXCEEDED
            await Observer(own.connection).until_idle()
        assert await own.versions() == before


async def test_a_read_gets_the_servers_deadline(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, default_deadline=0.5) as own:
        user = await own.clients.create_user()
        async with asyncio.timeout(30), holding(own.database_url, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"):
            with fails(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                await own.clients.users.GetUser(pb.GetUserRequest(id=user.id))
        assert (await own.clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == user
