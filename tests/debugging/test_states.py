"""The words for what a call does, where no test with a whole server can hold it for long enough."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from service.application.ports.errors import Contention
from service.config import PasswordSettings, load
from service.db.connections.slots import Slots
from service.debugging.await_chains import follow
from service.debugging.states import state_of
from service.passwords import Argon2Passwords, Turns
from service.rpc import retry
from service.rpc.admission.gate import Gate
from service.rpc.retry import retried
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.deadline import no_deadline
from service.runtime.loop_turns import LoopTurns
from service.runtime.retry import Backoff


async def words_of(work: Coroutine[Any, Any, Any], pools: dict[int, str] | None = None) -> str:
    """Return what a task does that waits, and cancel it."""
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    words = state_of(follow(task, {}), pools or {}).words
    task.cancel()
    await asyncio.wait([task])
    return words


async def test_a_call_that_waits_for_admission() -> None:
    gate = Gate(AdaptiveLimit(1, minimum=1, maximum=1), reserve=0, queue_size=10, queue_seconds=5)
    gate.enter("key:other", 0)
    assert await words_of(gate.wait("key:own", None)) == "waiting for admission"


async def test_a_call_that_waits_for_a_connection() -> None:
    slots = Slots(1, None)
    assert slots.take_free()
    assert await words_of(slots.take(no_deadline), {id(slots): "search"}) == "waiting for a connection of search"
    assert await words_of(slots.take(no_deadline)) == "waiting for a connection"


async def test_a_call_that_waits_for_a_password_thread() -> None:
    turns = Turns(1, 10)
    await turns.take(no_deadline, background=False)
    assert await words_of(turns.take(no_deadline, background=False)) == "waiting for a password thread"


async def test_a_call_whose_password_is_hashed() -> None:
    passwords = Argon2Passwords(load(PasswordSettings, argon2_time_cost=20, argon2_memory_kib=8192))
    assert await words_of(passwords.hash("correct horse")) == "hashing a password"
    passwords.close()
    await passwords.drain()


async def test_a_call_that_waits_for_its_turn_on_the_event_loop() -> None:
    turns = LoopTurns()
    await turns.take(rest=60)
    assert await words_of(turns.take()) == "waiting for its turn on the event loop"


async def test_a_call_that_pauses_before_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF", Backoff(base=60))

    async def fails() -> None:
        raise Contention

    pausing = retried(fails, no_deadline, outcome_known_by_repeating=True)
    assert await words_of(pausing) == "pausing before the next attempt"


async def test_a_call_whose_attempt_waits_for_something_else_does_not_pause() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    assert await words_of(retried(waits, no_deadline, outcome_known_by_repeating=True)) == "waiting"
