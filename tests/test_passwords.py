import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.config import PasswordSettings, load
from service.passwords import Argon2Passwords, Turns
from service.runtime.deadline import Deadline, no_deadline
from tests.support.passwords import FAST_PASSWORDS, PASSWORD

# About 0.1 s for one hash: long compared with a turn of the event loop.
SLOW_PASSWORDS = {"argon2_time_cost": 20, "argon2_memory_kib": 8192}


@contextmanager
def hashing(**settings: int) -> Iterator[Argon2Passwords]:
    passwords = Argon2Passwords(load(PasswordSettings, **settings))
    try:
        yield passwords
    finally:
        passwords.close()


@pytest.fixture
def passwords() -> Iterator[Argon2Passwords]:
    with hashing(**FAST_PASSWORDS) as passwords:
        yield passwords


@pytest.fixture
def slow() -> Iterator[Argon2Passwords]:
    """Hashes one password at a time, and queues two."""
    with hashing(**SLOW_PASSWORDS, password_threads=1, password_queue_size=2) as passwords:
        yield passwords


async def test_a_password_is_verified_by_its_hash(passwords: Argon2Passwords) -> None:
    password_hash = await passwords.hash(PASSWORD)
    assert await passwords.verify(PASSWORD, password_hash) is True


@pytest.mark.parametrize("wrong", ["", "x", PASSWORD.upper(), f"{PASSWORD} ", PASSWORD[:-1]])
async def test_another_password_is_not(passwords: Argon2Passwords, wrong: str) -> None:
    assert await passwords.verify(wrong, await passwords.hash(PASSWORD)) is False


async def test_a_password_may_be_any_text(passwords: Argon2Passwords) -> None:
    password = "пароль\0\N{PILE OF POO}" * 10
    password_hash = await passwords.hash(password)
    assert await passwords.verify(password, password_hash) is True
    assert await passwords.verify(password.partition("\0")[0], password_hash) is False


async def test_a_password_is_the_text_that_it_shows(passwords: Argon2Passwords) -> None:
    writings = ["v\u00e9lo \u2460 \ufb01ne", "ve\u0301lo 1 fine"]
    for written in writings:
        password_hash = await passwords.hash(written)
        assert [await passwords.verify(typed, password_hash) for typed in writings] == [True, True]
        assert not await passwords.verify("velo 1 fine", password_hash)


async def test_an_old_hash_of_the_characters_as_typed_is_verified_as_typed(passwords: Argon2Passwords) -> None:
    typed = "ve\u0301lo au lait"
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(typed)
    assert not await passwords.verify(typed, old)
    assert await passwords.verify(typed, old, as_typed=True)
    assert not await passwords.verify("v\u00e9lo au lait", old, as_typed=True)
    assert not await passwords.verify(typed, None, as_typed=True)


async def test_a_hash_is_argon2id_with_the_parameters_of_the_settings(passwords: Argon2Passwords) -> None:
    password_hash = await passwords.hash(PASSWORD)
    assert password_hash.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert PASSWORD not in password_hash


async def test_two_hashes_of_a_password_differ(passwords: Argon2Passwords) -> None:
    assert await passwords.hash(PASSWORD) != await passwords.hash(PASSWORD)


@pytest.mark.parametrize("password", [PASSWORD, "", "no user has this password"])
async def test_every_password_of_a_missing_user_is_wrong(passwords: Argon2Passwords, password: str) -> None:
    assert await passwords.verify(password, None) is False


async def test_an_unknown_user_costs_as_much_as_a_known_one(slow: Argon2Passwords) -> None:
    password_hash = await slow.hash(PASSWORD)

    async def cost(password_hash: str | None) -> float:
        # CPU time, not wall time: other processes use this machine too.
        start = time.process_time()
        await slow.verify("wrong", password_hash)
        return time.process_time() - start

    known = min([await cost(password_hash) for _ in range(3)])
    unknown = min([await cost(None) for _ in range(3)])
    assert unknown > known / 2


async def test_a_damaged_hash_is_an_error_and_not_a_wrong_password(passwords: Argon2Passwords) -> None:
    with pytest.raises(InvalidHashError):
        await passwords.verify(PASSWORD, "not a hash")


@pytest.mark.parametrize("changed", [{"argon2_time_cost": 2}, {"argon2_memory_kib": 24}, {"argon2_parallelism": 2}])
async def test_a_hash_needs_a_rehash_when_a_parameter_changes(changed: dict[str, int]) -> None:
    before = {"argon2_time_cost": 1, "argon2_memory_kib": 16, "argon2_parallelism": 1}
    with hashing(**before) as passwords, hashing(**{**before, **changed}) as others:
        password_hash = await passwords.hash(PASSWORD)
        assert passwords.needs_rehash(password_hash) is False
        assert others.needs_rehash(password_hash) is True


async def test_an_old_hash_still_verifies_after_the_parameters_changed(
    passwords: Argon2Passwords, slow: Argon2Passwords
) -> None:
    old = await passwords.hash(PASSWORD)
    assert extract_parameters(old).time_cost == 1
    assert await slow.verify(PASSWORD, old) is True
    assert await slow.verify("wrong", old) is False


async def test_a_full_queue_refuses_immediately(slow: Argon2Passwords) -> None:
    password_hash = await slow.hash(PASSWORD)
    accepted = [asyncio.create_task(slow.hash(PASSWORD)) for _ in range(3)]
    # One turn of the loop lets the tasks enter the queue.
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await slow.hash(PASSWORD)
    with pytest.raises(Overloaded):
        await slow.verify(PASSWORD, password_hash)
    with pytest.raises(Overloaded):
        await slow.verify(PASSWORD, None)
    assert not any(task.done() for task in accepted)
    hashes = await asyncio.gather(*accepted)
    assert len(set(hashes)) == 3
    assert await slow.verify(PASSWORD, hashes[0]) is True


async def test_a_failure_frees_its_slot(slow: Argon2Passwords) -> None:
    for _ in range(5):
        with pytest.raises(InvalidHashError):
            await slow.verify(PASSWORD, "not a hash")
    assert await slow.hash(PASSWORD)


async def test_a_cancelled_caller_frees_its_slot(slow: Argon2Passwords) -> None:
    running, waiting, gone = (asyncio.create_task(slow.hash(PASSWORD)) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await slow.hash(PASSWORD)
    assert await running
    assert await waiting


async def test_the_event_loop_turns_while_passwords_are_hashed(slow: Argon2Passwords) -> None:
    task = asyncio.create_task(slow.hash(PASSWORD))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    # Hashing on the loop itself would allow two or three turns.
    assert turns > 50


async def test_background_work_comes_last_and_takes_no_place_in_the_queue(slow: Argon2Passwords) -> None:
    ended: list[str] = []

    async def hash_as(name: str, *, background: bool) -> None:
        await slow.hash(PASSWORD, background=background)
        ended.append(name)

    imports = [asyncio.create_task(hash_as("import", background=True)) for _ in range(5)]
    await asyncio.sleep(0)
    sign_ins = [asyncio.create_task(hash_as("sign-in", background=False)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await slow.hash(PASSWORD)
    await asyncio.gather(*imports, *sign_ins)
    # The first had begun, and cannot be interrupted.
    assert ended == ["import", "sign-in", "sign-in", *["import"] * 4]


async def test_a_password_that_nobody_waits_for_keeps_its_thread_until_it_is_hashed(slow: Argon2Passwords) -> None:
    gone = asyncio.create_task(slow.hash(PASSWORD))
    await asyncio.sleep(0)
    gone.cancel()
    waiting = [asyncio.create_task(slow.hash(PASSWORD)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await slow.hash(PASSWORD)
    assert gone.cancelled()
    await asyncio.gather(*waiting)


async def turn(turns: Turns, *, background: bool = False, seconds: float = 30) -> asyncio.Task[None]:
    taking = asyncio.create_task(turns.take(Deadline(seconds), background=background))
    for _ in range(3):
        await asyncio.sleep(0)
    return taking


@pytest.mark.parametrize(("size", "share"), [(1, 1), (2, 1), (3, 1), (4, 2)])
async def test_background_work_gets_half_of_the_turns(size: int, share: int) -> None:
    turns = Turns(size, queue_size=0)
    imports = [await turn(turns, background=True) for _ in range(size + 1)]
    assert sum(taking.done() for taking in imports) == share
    sign_ins = [await turn(turns) for _ in range(size - share)]
    assert all(taking.done() for taking in sign_ins)
    with pytest.raises(Overloaded):
        await turns.take(no_deadline, background=False)
    for taking in imports:
        taking.cancel()


async def test_a_turn_is_given_in_order_and_to_interactive_callers_first() -> None:
    turns = Turns(1, queue_size=2)
    await turns.take(no_deadline, background=False)
    later = [await turn(turns, background=background) for background in (True, True, False, False)]
    for index, ended_in_background in ((2, False), (3, False), (0, False), (1, True)):
        assert not later[index].done()
        turns.give_back(background=ended_in_background)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert later[index].done(), index


async def test_a_caller_without_time_gets_no_turn_and_keeps_nobody_out() -> None:
    turns = Turns(1, queue_size=2)
    await turns.take(no_deadline, background=False)
    late = [await turn(turns, seconds=seconds) for seconds in (0, -1)]
    # There is room for two more.
    in_time = [await turn(turns) for _ in range(2)]
    for taking in late:
        with pytest.raises(DeadlineExceeded):
            await taking
    with pytest.raises(Overloaded):
        await turns.take(no_deadline, background=False)
    turns.give_back(background=False)
    await in_time[0]
    assert not in_time[1].done()
    in_time[1].cancel()


async def test_a_caller_whose_time_is_over_when_its_turn_comes_is_passed_over() -> None:
    turns = Turns(1, queue_size=2)
    await turns.take(no_deadline, background=False)
    late, in_time = await turn(turns, seconds=0), await turn(turns)
    turns.give_back(background=False)
    with pytest.raises(DeadlineExceeded):
        await late
    await in_time


@pytest.mark.parametrize("background", [False, True])
async def test_a_caller_that_goes_loses_no_turn(*, background: bool) -> None:
    turns = Turns(1, queue_size=5)
    await turns.take(no_deadline, background=background)
    waiting, at_that_moment, last = [await turn(turns, background=background) for _ in range(3)]
    waiting.cancel()
    await asyncio.wait({waiting})
    turns.give_back(background=background)
    # It has got its turn, but has not run since.
    at_that_moment.cancel()
    await asyncio.wait({at_that_moment})
    assert waiting.cancelled()
    assert at_that_moment.cancelled()
    await last


async def test_the_call_says_how_long_a_password_is_waited_for() -> None:
    time_left = Deadline(30)
    passwords = Argon2Passwords(load(PasswordSettings, **FAST_PASSWORDS, password_threads=1), lambda: time_left)
    try:
        running, waiting = (asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(2))
        await asyncio.sleep(0)
        time_left.end()
        await running
        with pytest.raises(DeadlineExceeded):
            await waiting
    finally:
        passwords.close()
