"""What tasks wait for, from coroutine to coroutine and from task to task."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from service.application.ports.unit_of_work import TimeLeft
from service.db.connections.batching import Batcher
from service.db.connections.slots import Slots
from service.debugging.await_chains import Chain, completed_by, context_of, follow
from service.passwords import Turns
from service.rpc.admission.gate import Gate
from service.rpc.retry import retried
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.deadline import no_deadline
from service.runtime.shielded_tasks import ShieldedTasks
from tests.support.waiting import eventually


def names(chain: Chain) -> list[str]:
    """Return the functions of a chain, without the classes and functions that contain them."""
    return [step.name.rpartition(".")[2] for step in chain.steps]


@pytest.fixture
async def released() -> AsyncIterator[asyncio.Event]:
    """What all functions here wait for until the end of the test."""
    released = asyncio.Event()
    yield released
    released.set()


async def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Return a task that waits, or has ended."""
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def chain_of(work: Coroutine[Any, Any, Any]) -> Chain:
    return follow(await started(work), completed_by(asyncio.all_tasks()))


async def test_a_chain_leads_through_coroutines_and_generators(released: asyncio.Event) -> None:
    async def inner() -> None:
        await released.wait()

    async def items() -> AsyncIterator[int]:
        await inner()
        yield 1

    async def outer() -> int:
        return await anext(items())

    chain = await chain_of(outer())
    assert names(chain) == ["outer", "items", "inner", "wait"]
    assert not chain.is_ready
    assert len(chain.tasks) == 1


async def test_a_chain_leads_through_what_waits_for_other_tasks(released: asyncio.Event) -> None:
    async def work() -> None:
        await released.wait()

    async def gather() -> None:
        await asyncio.gather(work(), work())

    async def wait() -> None:
        await asyncio.wait([asyncio.create_task(gather())])

    chain = await chain_of(wait())
    assert names(chain)[0] == "wait"
    assert names(chain)[-3:] == ["gather", "work", "wait"]
    assert len(chain.tasks) == 3


async def test_a_chain_leads_into_a_shielded_task_that_completes_a_future(released: asyncio.Event) -> None:
    shielded = ShieldedTasks(lambda _error: False)

    async def statement() -> None:
        await released.wait()

    chain = await chain_of(shielded.run(statement()))
    assert names(chain) == ["run", "_deliver", "statement", "wait"]
    assert len(chain.tasks) == 2


async def test_the_callers_of_a_batch_wait_for_the_task_that_runs_it(released: asyncio.Event) -> None:
    shielded = ShieldedTasks(lambda _error: False)

    async def run(items: Sequence[int], _time_left: TimeLeft) -> Sequence[int]:
        await released.wait()
        return items

    batcher: Batcher[int, int] = Batcher(run, shielded, Slots(10, None), max_items=100)
    callers = [await started(batcher.submit(number, no_deadline)) for number in range(4)]
    chains = [follow(caller, completed_by(asyncio.all_tasks())) for caller in callers]
    assert [names(chain)[:2] for chain in chains[:2]] == [["submit", "_run_batch"]] * 2
    # The first one has a batch of its own; two run, and the others wait.
    assert chains[0].tasks[-1] is not chains[1].tasks[-1]
    assert names(chains[3]) == ["submit"]
    released.set()
    assert await asyncio.gather(*callers) == [0, 1, 2, 3]


async def test_a_task_that_runs_waits_for_nothing() -> None:
    async def itself() -> Chain:
        task = asyncio.current_task()
        assert task
        return follow(task, {})

    chain = await asyncio.create_task(itself())
    assert chain.is_ready
    assert names(chain) == ["itself"]


async def test_a_task_has_the_context_in_which_it_was_started(released: asyncio.Event) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    context = copy_context()
    context.run(variable.set, "of the call")
    task = asyncio.get_running_loop().create_task(released.wait(), context=context)
    found = context_of(task)
    assert found is not None
    assert found[variable] == "of the call"
    released.set()
    await task


def full_gate() -> Gate:
    gate = Gate(AdaptiveLimit(1, minimum=1, maximum=1), reserve=0, queue_size=10, queue_seconds=5)
    gate.enter("key:other", 0)
    return gate


async def test_the_functions_that_calls_wait_in_are_found_in_chains(released: asyncio.Event) -> None:
    slots, turns, gate = Slots(1, None), Turns(1, 10), full_gate()
    assert slots.take_free()
    await turns.take(no_deadline, background=False)
    places: dict[str, tuple[Callable[[], Coroutine[Any, Any, Any]], Callable[..., Any]]] = {
        "slot": (lambda: slots.take(no_deadline), Slots.take),
        "thread": (lambda: turns.take(no_deadline, background=False), Turns.take),
        "admission": (lambda: gate.wait("key:own", None), Gate.wait),
        "retry": (lambda: retried(released.wait, no_deadline, outcome_known_by_repeating=True), retried),
    }
    for place, (begin, function) in places.items():
        task = await started(begin())
        codes = [step.frame.f_code for step in follow(task, {}).steps if step.frame]
        assert function.__code__ in codes, place
        task.cancel()
        await eventually(task.done)
