import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg
import commerce.users.v1.user_service_pb2 as pb
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode
from grpc.aio import AioRpcError

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.retention import delete_old_sign_in_attempts
from service.domain.sign_in import sign_in_delays
from tests.support.clients import Clients, connect
from tests.support.failures import Failure, fails, failure_of
from tests.support.logs import Log
from tests.support.passwords import PASSWORD
from tests.support.policies import guarded_server
from tests.support.servers import OwnServer, own_server, running_server, serving_clients

WRONG = "wrong horse battery"
FREE = 5


@pytest.fixture
async def own(postgres_url: str, template_url: str) -> AsyncIterator[OwnServer]:
    async with own_server(postgres_url, template_url) as own:
        yield own


async def sign_in(clients: Clients, password: str = PASSWORD, **request: str) -> pb.VerifyPasswordResponse:
    return await clients.users.VerifyPassword(pb.VerifyPasswordRequest(password=password, **request))


@contextmanager
def is_wrong() -> Iterator[Failure]:
    with fails(StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS") as failure:
        yield failure


@contextmanager
def is_limited() -> Iterator[Failure]:
    with fails(StatusCode.RESOURCE_EXHAUSTED, "SIGN_IN_LIMIT") as failure:
        yield failure
    assert seconds_of(failure) >= 1


def seconds_of(failure: Failure) -> int:
    info = failure.details[RetryInfo]
    assert isinstance(info, RetryInfo)
    assert info.retry_delay.nanos == 0
    return info.retry_delay.seconds


async def use_up(clients: Clients, **login: str) -> None:
    for _ in range(FREE):
        with is_wrong():
            await sign_in(clients, WRONG, **login)


async def end_pauses(connection: asyncpg.Connection) -> None:
    await connection.execute("UPDATE sign_in_attempts SET retry_time = clock_timestamp()")


async def set_pauses(connection: asyncpg.Connection, seconds: int) -> None:
    await connection.execute(
        "UPDATE sign_in_attempts SET retry_time = clock_timestamp() + make_interval(secs => $1)", seconds
    )


async def test_after_five_wrong_passwords_even_the_right_one_is_refused_until_the_pause_is_over(own: OwnServer) -> None:
    user = await own.clients.create_user()
    await use_up(own.clients, email=user.email)
    # Longer than in reality, so that it does not end before the next call.
    await set_pauses(own.connection, 600)
    with is_limited() as failure:
        await sign_in(own.clients, email=user.email)
    assert 590 < seconds_of(failure) <= 600
    assert failure.message == (
        "too many attempts to sign in with this login; the password was not checked;"
        f" wait {seconds_of(failure)} seconds"
    )
    await end_pauses(own.connection)
    assert (await sign_in(own.clients, email=user.email)).user == user
    # From the start.
    await use_up(own.clients, email=user.email)


async def test_the_count_of_a_wrong_password_stays_although_its_call_fails(own: OwnServer) -> None:
    user = await own.clients.create_user()
    with is_wrong():
        await sign_in(own.clients, WRONG, email=user.email)
    assert await own.connection.fetchval("SELECT attempts FROM sign_in_attempts") == 1


async def test_every_further_attempt_doubles_the_pause_up_to_the_longest(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, sign_in_free_attempts=2, sign_in_max_delay=6) as own:
        user, pauses = await own.clients.create_user(), []
        for _ in range(6):
            await end_pauses(own.connection)
            with is_wrong():
                await sign_in(own.clients, WRONG, email=user.email)
            pause = await own.connection.fetchval(
                "SELECT extract(epoch FROM retry_time - clock_timestamp())::float FROM sign_in_attempts"
            )
            pauses.append(pause)
    # The time of the statement itself, and of what it waited for, has passed already.
    assert [round(pause + 0.4) for pause in pauses[1:]] == [1, 2, 4, 6, 6]
    assert pauses[0] < 0


async def test_unknown_and_inactive_users_are_limited_like_any_other(own: OwnServer) -> None:
    active, inactive = await own.clients.create_user(), await own.clients.create_user()
    await own.clients.users.DeactivateUser(pb.DeactivateUserRequest(id=inactive.id))
    logins = [
        {"email": active.email, "password": WRONG},
        {"email": inactive.email, "password": PASSWORD},
        {"email": "nobody@example.com", "password": PASSWORD},
        {"username": "nobody", "password": PASSWORD},
        {"email": "\N{SNOWMAN}", "password": PASSWORD},
    ]
    answers = []
    for login in logins:
        for _ in range(FREE):
            with is_wrong():
                await sign_in(own.clients, **login)
        await set_pauses(own.connection, 600)
        with is_limited() as failure:
            await sign_in(own.clients, **login)
        assert 590 < seconds_of(failure) <= 600
        # Apart from the seconds and the id of the call, the answers are the same.
        for name in ("x-request-id", "grpc-status-details-bin", "grpc-retry-pushback-ms"):
            failure.trailers.pop(name, None)
        answers.append((failure.message.replace(str(seconds_of(failure)), "600"), failure.trailers, failure.metadata))
    assert answers == [answers[0]] * len(logins)


async def test_another_spelling_of_a_login_is_no_other_login(own: OwnServer) -> None:
    user = await own.clients.create_user(email="ada.lovelace@example.com", username="ada")
    for email in ("ADA.lovelace@example.com", "ada.LOVELACE@example.com", "ada.lovelace@EXAMPLE.com", user.email):
        with is_wrong():
            await sign_in(own.clients, WRONG, email=email)
    with is_wrong():
        await sign_in(own.clients, WRONG, email="Ada.Lovelace@Example.Com")
    await set_pauses(own.connection, 600)
    with is_limited():
        await sign_in(own.clients, email=user.email.upper())


async def test_other_users_sign_in_meanwhile(own: OwnServer) -> None:
    user, other = await own.clients.create_user(), await own.clients.create_user()
    await use_up(own.clients, email=user.email)
    await set_pauses(own.connection, 600)
    assert (await sign_in(own.clients, email=other.email)).user == other


async def test_two_servers_count_together(own: OwnServer) -> None:
    user = await own.clients.create_user()
    async with serving_clients(own.database_url) as others:
        for turn in range(FREE):
            with is_wrong():
                await sign_in((own.clients, others)[turn % 2], WRONG, email=user.email)
        await set_pauses(own.connection, 600)
        for clients in (own.clients, others):
            with is_limited():
                await sign_in(clients, email=user.email)
        await end_pauses(own.connection)
        await sign_in(others, email=user.email)
        await use_up(own.clients, email=user.email)


async def test_of_many_guesses_at_the_same_moment_on_two_servers_as_many_are_checked_as_one_after_the_other(
    own: OwnServer,
) -> None:
    user = await own.clients.create_user()

    async def guess(clients: Clients, number: int) -> str:
        with pytest.raises(AioRpcError) as raised:
            await sign_in(clients, f"{WRONG} {number}", email=user.email)
        return failure_of(raised.value).reason

    async with serving_clients(own.database_url) as others:
        began = perf_counter()
        reasons = await asyncio.gather(*(guess((own.clients, others)[n % 2], n) for n in range(100)))
        seconds = perf_counter() - began
    checked = reasons.count("INVALID_CREDENTIALS")
    # More than the free ones only if this took longer than the first pauses.
    assert FREE <= checked <= attempts_possible_within(seconds)
    assert reasons.count("SIGN_IN_LIMIT") == 100 - checked


def attempts_possible_within(seconds: float) -> int:
    ends_of_pauses = accumulate(sign_in_delays(FREE, 900))
    return 1 + sum(end <= seconds for end in ends_of_pauses)


async def test_who_guesses_through_one_caller_does_not_delay_those_of_another(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    may = {"key:leaked": ["users.verify"], "key:shop": ["users.verify", "users.write"]}
    async with guarded_server(postgres_url, template_url, tmp_path, may) as guarded:
        leaked, shop = await guarded.clients_of("leaked"), await guarded.clients_of("shop")
        user = await shop.create_user()
        await use_up(leaked, email=user.email)
        await set_pauses(guarded.connection, 600)
        with is_limited():
            await sign_in(leaked, email=user.email)
        assert (await sign_in(shop, email=user.email)).user == user
        with is_limited():
            await sign_in(leaked, email=user.email)


# Devices


async def test_a_device_that_has_signed_in_before_does_not_wait_for_those_who_guess(own: OwnServer) -> None:
    user = await own.clients.create_user()
    token = (await sign_in(own.clients, email=user.email)).device_token
    await use_up(own.clients, email=user.email)
    await set_pauses(own.connection, 600)
    with is_limited():
        await sign_in(own.clients, email=user.email)
    answer = await sign_in(own.clients, email=user.email, device_token=token)
    assert answer.user == user
    # A success on a known device tells nothing about the others.
    with is_limited():
        await sign_in(own.clients, email=user.email)
    # The new token is the same device.
    await use_up(own.clients, email=user.email, device_token=token)
    await set_pauses(own.connection, 600)
    with is_limited():
        await sign_in(own.clients, email=user.email, device_token=answer.device_token)


async def test_a_token_of_another_login_or_a_damaged_one_is_ignored(own: OwnServer) -> None:
    user, other = await own.clients.create_user(), await own.clients.create_user()
    tokens = [
        (await sign_in(own.clients, email=other.email)).device_token,
        (await sign_in(own.clients, username=user.username)).device_token,
        (await sign_in(own.clients, email=user.email)).device_token[::-1],
        "x",
    ]
    await use_up(own.clients, email=user.email)
    await set_pauses(own.connection, 600)
    for token in tokens:
        with is_limited():
            await sign_in(own.clients, email=user.email, device_token=token)


async def test_every_server_knows_the_tokens_of_the_others(own: OwnServer) -> None:
    user = await own.clients.create_user()
    token = (await sign_in(own.clients, email=user.email)).device_token
    await use_up(own.clients, email=user.email)
    await set_pauses(own.connection, 600)
    async with serving_clients(own.database_url) as others:
        assert (await sign_in(others, email=user.email, device_token=token)).user == user


# What does not count


async def test_an_attempt_that_finds_the_queue_of_passwords_full_does_not_count(own: OwnServer) -> None:
    user, slow = await own.clients.create_user(), {"argon2_time_cost": 60, "argon2_memory_kib": 65536}
    async with (
        running_server(own.database_url, password_threads=1, password_queue_size=1, **slow) as busy,
        connect(busy.port) as clients,
    ):
        # Unknown users, for whom a password is hashed too: one is being hashed, one waits, and one finds no room.
        calls = [asyncio.ensure_future(sign_in(clients, WRONG, username=f"nobody{n}")) for n in range(3)]
        (refused,), waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
            await refused
        for _ in range(FREE + 1):
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                await sign_in(clients, WRONG, email=user.email)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
    await use_up(own.clients, email=user.email)


async def test_without_a_limit_any_number_of_attempts_is_checked(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, sign_in_max_delay=0) as own:
        user = await own.clients.create_user()
        for _ in range(4 * FREE):
            with is_wrong():
                await sign_in(own.clients, WRONG, email=user.email)
        assert (await sign_in(own.clients, email=user.email)).device_token
        assert (await own.rows())["sign_in_attempts"] == 0


# What is stored and logged


async def test_neither_the_table_nor_the_log_has_a_login(own: OwnServer, log: Log) -> None:
    user = await own.clients.create_user()
    await use_up(own.clients, email=user.email)
    await use_up(own.clients, email="nobody@example.com")
    await set_pauses(own.connection, 600)
    for email in (user.email, "nobody@example.com"):
        with is_limited() as failure:
            await sign_in(own.clients, email=email)
        assert email not in f"{failure.message} {failure.trailers}"
    columns = await own.connection.fetch(
        "SELECT attname, atttypid::regtype::text FROM pg_attribute"
        " WHERE attrelid = 'sign_in_attempts'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert [tuple(column) for column in columns] == [
        ("slot", "integer"),
        ("attempts", "integer"),
        ("retry_time", "timestamp with time zone"),
        ("expire_time", "timestamp with time zone"),
    ]
    logged = log.output.getvalue()
    assert "VerifyPassword" in logged
    assert user.email not in logged
    assert "nobody@example.com" not in logged


async def test_an_attempt_during_a_pause_costs_less_than_a_password(postgres_url: str, template_url: str) -> None:
    slow = {"argon2_time_cost": 20, "argon2_memory_kib": 19456}
    async with own_server(postgres_url, template_url, sign_in_free_attempts=1, **slow) as own:
        times: dict[str, list[float]] = {"UNAUTHENTICATED": [], "RESOURCE_EXHAUSTED": []}
        for number in range(3):
            for _ in range(2):
                began = perf_counter()
                with pytest.raises(AioRpcError) as raised:
                    await sign_in(own.clients, WRONG, email=f"nobody{number}@example.com")
                times[raised.value.code().name].append(perf_counter() - began)
                await set_pauses(own.connection, 600)
    assert len(times["UNAUTHENTICATED"]) == len(times["RESOURCE_EXHAUSTED"]) == 3
    assert median(times["RESOURCE_EXHAUSTED"]) < median(times["UNAUTHENTICATED"]) / 2


async def test_gc_does_not_end_a_pause(own: OwnServer) -> None:
    user = await own.clients.create_user()
    await use_up(own.clients, email=user.email)
    await set_pauses(own.connection, 600)
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=own.database_url), pool_size=1)
    assert await delete_old_sign_in_attempts(engine) == 0
    await engine.dispose()
    with is_limited():
        await sign_in(own.clients, email=user.email)
