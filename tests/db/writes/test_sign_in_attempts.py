import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from time import perf_counter

import asyncpg
import pytest

from service.application.ports.sign_in_attempts import CountedAttempt, SignInAttempts
from service.config import DatabaseSettings, load
from service.db.connections.reader import StatementReader
from service.db.database import Database
from service.db.tables import SIGN_IN_SLOTS
from service.db.writes.sign_in_attempts import CountedSignInAttempts
from service.domain.errors import SignInLimited
from service.domain.sign_in import SignIn, forget_seconds, sign_in_delays
from tests.support.databases import driver_connection

KEY = b"k" * 32
FREE = 3
DELAYS = sign_in_delays(FREE, 100)
FORGET = forget_seconds(DELAYS)
ADA = SignIn("email", "ada@example.com", "tests")
JOAN = SignIn("email", "joan@example.com", "tests")


@asynccontextmanager
async def attempts_of_a_process(url: str) -> AsyncIterator[CountedSignInAttempts]:
    """Yield what one process uses to count attempts."""
    database = Database(load(DatabaseSettings, DATABASE_URL=url), None)
    try:
        attempts = database.sign_in_attempts(KEY, DELAYS)
        assert isinstance(attempts, CountedSignInAttempts)
        yield attempts
    finally:
        await database.close()


@pytest.fixture
async def attempts(database_url: str) -> AsyncIterator[CountedSignInAttempts]:
    async with attempts_of_a_process(database_url) as attempts:
        yield attempts


async def begin(attempts: SignInAttempts, sign_in: SignIn = ADA) -> CountedAttempt:
    attempt = await attempts.begin(sign_in)
    assert attempt is not None
    return attempt


async def seconds_to_wait(attempts: SignInAttempts, sign_in: SignIn = ADA) -> int:
    with pytest.raises(SignInLimited) as limited:
        await attempts.begin(sign_in)
    return limited.value.retry_seconds


async def let_pass(connection: asyncpg.Connection, seconds: float) -> None:
    """Change the stored times as if this time had passed."""
    await connection.execute(
        "UPDATE sign_in_attempts SET retry_time = retry_time - $1::interval, expire_time = expire_time - $1::interval",
        _time(seconds),
    )


def _time(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


async def stored(connection: asyncpg.Connection) -> list[int]:
    return [row["attempts"] for row in await connection.fetch("SELECT attempts FROM sign_in_attempts")]


async def test_the_pauses_are_those_of_the_schedule(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    for number, delay in enumerate([*DELAYS, DELAYS[-1], DELAYS[-1]], 1):
        assert (await begin(attempts)).number == number
        pause = await connection.fetchval("SELECT retry_time - clock_timestamp() FROM sign_in_attempts")
        # It is read a moment later.
        assert _time(delay) - timedelta(seconds=5) < pause <= _time(delay)
        if delay:
            assert delay - 5 < await seconds_to_wait(attempts) <= delay
            await let_pass(connection, delay)


async def test_an_attempt_during_a_pause_changes_nothing(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    for _ in range(FREE):
        await begin(attempts)
    await connection.execute("UPDATE sign_in_attempts SET retry_time = clock_timestamp() + interval '50 seconds'")
    before = await connection.fetch("SELECT xmin::text, xmax::text, * FROM sign_in_attempts")
    for _ in range(100):
        assert 40 < await seconds_to_wait(attempts) <= 50
    assert await connection.fetch("SELECT xmin::text, xmax::text, * FROM sign_in_attempts") == before


async def test_a_success_forgets_the_attempts_before_it(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    await begin(attempts)
    await attempts.succeeded(await begin(attempts))
    assert await stored(connection) == []
    assert (await begin(attempts)).number == 1


async def test_a_long_time_without_an_attempt_forgets_those_before(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    for _ in range(2):
        await begin(attempts)
    await let_pass(connection, FORGET - 10)
    assert (await begin(attempts)).number == FREE
    await let_pass(connection, FORGET - 10)
    assert (await begin(attempts)).number == FREE + 1
    await let_pass(connection, FORGET + 10)
    assert (await begin(attempts)).number == 1


async def test_an_attempt_that_was_not_checked_does_not_count(attempts: CountedSignInAttempts) -> None:
    for _ in range(5):
        for _ in range(FREE - 1):
            await begin(attempts)
        await attempts.undo(await begin(attempts))
        # Without a pause.
        await attempts.succeeded(await begin(attempts))


async def test_undoing_an_attempt_leaves_the_pause_after_a_later_one(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    begun = [await begin(attempts) for _ in range(FREE)]
    await connection.execute("UPDATE sign_in_attempts SET retry_time = clock_timestamp() + interval '50 seconds'")
    await attempts.undo(begun[0])
    assert await seconds_to_wait(attempts) > 40
    assert await stored(connection) == [FREE - 1]


async def test_what_was_forgotten_meanwhile_is_not_undone(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    first, second = await begin(attempts), await begin(attempts)
    await attempts.succeeded(second)
    await attempts.undo(first)
    assert await stored(connection) == []
    begun = await begin(attempts)
    for _ in range(3):
        await attempts.undo(begun)
    assert await stored(connection) == [0]


async def test_of_many_attempts_at_the_same_moment_in_several_processes_as_many_begin_as_one_after_the_other(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async def begins(attempts: SignInAttempts) -> bool:
        try:
            await attempts.begin(ADA)
        except SignInLimited:
            return False
        return True

    async with attempts_of_a_process(database_url) as one, attempts_of_a_process(database_url) as other:
        # Without a row, and with one. More than that begin only if this takes longer than the pauses.
        started = perf_counter()
        first = sum(await asyncio.gather(*(begins(process) for process in (one, other) * 50)))
        await let_pass(connection, DELAYS[first - 1])
        second = sum(await asyncio.gather(*(begins(process) for process in (one, other) * 50)))
        seconds = perf_counter() - started
    assert first >= FREE
    assert second >= 1
    assert sum(DELAYS[FREE - 1 : first + second - 1]) - sum(DELAYS[first - 1 : first]) <= seconds


async def test_one_login_does_not_wait_for_another(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    await begin(attempts)
    async with connection.transaction():
        # As if an attempt with the other login took its time.
        await connection.execute("SELECT FROM sign_in_attempts FOR UPDATE")
        assert (await begin(attempts, JOAN)).number == 1
        waiting = asyncio.create_task(begin(attempts))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert (await waiting).number == 2


async def test_each_caller_device_and_login_has_attempts_of_its_own(attempts: CountedSignInAttempts) -> None:
    for _ in range(FREE):
        await begin(attempts)
    await seconds_to_wait(attempts)
    others = [
        JOAN,
        SignIn("username", ADA.login, ADA.caller),
        SignIn("email", ADA.login, "another"),
        SignIn("email", ADA.login, ADA.caller, b"device"),
        SignIn("email", ADA.login, ADA.caller, b"another device"),
    ]
    assert [(await begin(attempts, other)).number for other in others] == [1] * len(others)
    # A device is the same for every caller.
    assert (await begin(attempts, SignIn("email", ADA.login, "another", b"device"))).number == 2


async def test_a_clock_that_was_set_back_makes_no_pause_longer(
    attempts: CountedSignInAttempts, connection: asyncpg.Connection
) -> None:
    for _ in range(FREE):
        await begin(attempts)
    # A failover to a server whose clock is an hour behind.
    await let_pass(connection, -3600)
    assert (await begin(attempts)).number == FREE + 1


async def test_the_slot_of_a_login_depends_on_the_key(database_url: str) -> None:
    database = Database(load(DatabaseSettings, DATABASE_URL=database_url), None)
    counters = [CountedSignInAttempts(StatementReader(database.engine), key * 32, DELAYS) for key in (b"k", b"k", b"o")]
    slots = [counter.slot(ADA) for counter in counters]
    assert slots[0] == slots[1] != slots[2]
    others = {counters[0].slot(SignIn("email", f"{n}@example.com", "tests")) for n in range(1000)}
    assert len(others) > 990
    assert all(0 <= slot < SIGN_IN_SLOTS for slot in others)
    await database.close()


async def test_without_a_limit_nothing_is_counted(database_url: str) -> None:
    database = Database(load(DatabaseSettings, DATABASE_URL=database_url), None)
    attempts = database.sign_in_attempts(KEY, ())
    for _ in range(100):
        assert await attempts.begin(ADA) is None
    await attempts.undo(None)
    await attempts.succeeded(None)
    await database.close()
    async with driver_connection(database_url) as connection:
        assert await stored(connection) == []
