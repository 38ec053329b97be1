import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError

from service.application.ports.errors import Overloaded
from service.config import PasswordSettings, load
from service.passwords import Argon2Passwords
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
