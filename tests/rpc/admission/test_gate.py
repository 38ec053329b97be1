import asyncio
import time
from collections import Counter

import pytest

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.rpc.admission import gate as gates
from service.rpc.admission.gate import Gate
from service.runtime.adaptive_limit import AdaptiveLimit
from tests.support.waiting import eventually

# What no test waits for.
LONG = 60.0


def make_gate(running: int = 2, *, reserve: int = 0, queue_size: int = 20, queue_seconds: float = LONG) -> Gate:
    limit = AdaptiveLimit(running, minimum=running, maximum=running)
    return Gate(limit, reserve=reserve, queue_size=queue_size, queue_seconds=queue_seconds)


class Calls:
    """Calls through a gate, each of which runs until it is ended."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.running: list[tuple[str, int]] = []
        self.begun: Counter[str] = Counter()

    def start(self, caller: str, seconds: float | None = None) -> asyncio.Task[None]:
        """Start a call; its task ends as soon as it runs."""
        return asyncio.ensure_future(self._enter(caller, seconds))

    async def _enter(self, caller: str, seconds: float | None) -> None:
        ticket = self.gate.enter(caller, time.perf_counter()) or await self.gate.wait(caller, seconds)
        self.running.append((caller, ticket))
        self.begun[caller] += 1

    async def started(self, *callers: str) -> list[asyncio.Task[None]]:
        """Start calls, and let them run or wait."""
        tasks = [self.start(caller) for caller in callers]
        await asyncio.sleep(0)
        return tasks

    async def end_one(self) -> None:
        """End the call that has been running for the longest time, and let the next one run."""
        self.gate.leave(*self.running.pop(0))
        for _ in range(3):
            await asyncio.sleep(0)


async def test_calls_above_the_limit_wait_for_their_turn() -> None:
    calls = Calls(make_gate(2))
    tasks = await calls.started(*["a"] * 4)
    assert [task.done() for task in tasks] == [True, True, False, False]
    assert (calls.gate.running, calls.gate.waiting) == (2, 2)
    await calls.end_one()
    assert [task.done() for task in tasks] == [True, True, True, False]
    await calls.end_one()
    await calls.end_one()
    await calls.end_one()
    assert (calls.gate.running, calls.gate.waiting) == (0, 0)
    assert all(task.done() for task in tasks)


async def test_a_call_does_not_pass_those_that_wait_when_the_limit_grows() -> None:
    calls = Calls(make_gate(1))
    _, first, second = await calls.started("a", "a", "a")
    calls.gate.limit.value = 2
    (later,) = await calls.started("a")
    await asyncio.sleep(0)
    assert [call.done() for call in (first, second, later)] == [True, False, False]
    await calls.end_one()
    assert second.done()


async def test_callers_take_turns() -> None:
    calls = Calls(make_gate(1))
    await calls.started(*["flood"] * 9, "polite", "polite", "third")
    for _ in range(6):
        await calls.end_one()
    # The first one ran before the others came.
    assert calls.begun == {"flood": 4, "polite": 2, "third": 1}


async def test_calls_that_come_together_do_not_wait_for_as_many_of_another_caller() -> None:
    calls = Calls(make_gate(1, queue_size=100))
    await calls.started(*["flood"] * 40)
    for _ in range(20):
        await calls.end_one()
    before = calls.begun["flood"]
    await calls.started(*["polite"] * 6)
    for _ in range(6):
        await calls.end_one()
    assert (calls.begun["polite"], calls.begun["flood"]) == (6, before)


async def test_a_caller_that_always_has_calls_gets_no_more_turns_than_others() -> None:
    calls = Calls(make_gate(1, reserve=1, queue_size=400))
    await calls.started(*["flood"] * 150)
    for _ in range(30):
        await calls.end_one()
    before = calls.begun["flood"]
    for _ in range(60):
        # It never waits with more than two, and its queue is often empty.
        await calls.started(*["other"] * (2 - len([name for name, _ in calls.running if name == "other"])))
        await calls.end_one()
    flood, other = calls.begun["flood"] - before, calls.begun["other"]
    # Eight turns that it had saved up, and one in the reserve.
    assert other - flood <= 10, (flood, other)
    assert flood >= 20


async def test_many_callers_with_one_call_each_do_not_keep_another_one_waiting_for_ever() -> None:
    calls = Calls(make_gate(1, queue_size=400))
    await calls.started(*["steady"] * 100)
    for number in range(150):
        await calls.started(f"caller-{number}")
        await calls.end_one()
    # As many callers come as calls end, so each turn of it makes one more of them wait.
    assert 10 <= calls.begun["steady"] <= 20
    # What is known about callers does not grow with the number of those that have come.
    assert len(calls.gate.callers) < 50 + calls.gate.waiting
    while calls.running:
        await calls.end_one()
    assert not calls.gate.callers
    await calls.started("a", "a")
    assert calls.gate.callers == {"a"}


async def test_a_flood_leaves_places_in_the_queue_to_others() -> None:
    calls = Calls(make_gate(1, queue_size=20))
    floods = await calls.started(*["flood"] * 40)
    refused = [task for task in floods if task.done() and task.exception()]
    assert {type(task.exception()) for task in refused} == {Overloaded}
    assert calls.gate.waiting == 10
    others = await calls.started(*["polite"] * 5)
    assert not any(task.done() for task in others)


async def test_the_queues_of_many_callers_are_limited_together() -> None:
    calls = Calls(make_gate(1, queue_size=20))
    await calls.started("first")
    tasks = await calls.started(*(f"caller-{number}" for number in range(50)))
    assert calls.gate.waiting == 20
    assert sum(1 for task in tasks if task.done() and isinstance(task.exception(), Overloaded)) == 30


async def test_a_caller_without_a_running_call_need_not_wait_within_the_reserve() -> None:
    calls = Calls(make_gate(2, reserve=1))
    await calls.started(*["flood"] * 10)
    assert calls.gate.running == 2
    (polite,) = await calls.started("polite")
    assert polite.done()
    # Neither another call of it, nor one of another caller beyond the reserve.
    others = await calls.started("polite", "third")
    assert not any(task.done() for task in others)


async def test_a_call_that_waits_for_too_long_is_refused() -> None:
    calls = Calls(make_gate(1, queue_seconds=0.05))
    _, late = await calls.started("a", "a")
    with pytest.raises(Overloaded):
        await late
    assert calls.gate.waiting == 0


async def test_a_call_whose_deadline_passes_while_it_waits_does_not_run() -> None:
    calls = Calls(make_gate(1))
    await calls.started("a")
    late, patient = calls.start("a", 0.03), calls.start("a")
    with pytest.raises(DeadlineExceeded):
        await late
    await calls.end_one()
    await patient
    assert calls.begun["a"] == 2


async def test_a_call_whose_deadline_has_just_passed_does_not_run_when_its_turn_comes() -> None:
    calls = Calls(make_gate(1))
    await calls.started("a")
    late, patient = calls.start("a", 0.0), calls.start("a")
    await asyncio.sleep(0)
    await calls.end_one()
    with pytest.raises(DeadlineExceeded):
        await late
    await patient
    assert calls.gate.running == 1


def learn(gate: Gate, seconds: float) -> None:
    """Let a gate see how long calls take on a quiet server."""
    for number in range(50):
        gate.limit.add(seconds, 1, 1 + number)


async def test_a_call_that_would_not_end_by_its_deadline_is_refused_when_it_comes() -> None:
    calls = Calls(make_gate(1))
    learn(calls.gate, 0.2)
    await calls.started("a")
    assert calls.gate.would_refuse("a", 0.1)
    with pytest.raises(Overloaded):
        await calls.start("a", 0.1)
    assert not calls.gate.would_refuse("a", 1)
    patient = calls.start("a", LONG)
    await calls.end_one()
    await patient


async def test_a_call_that_would_not_end_by_its_deadline_any_more_is_refused_when_its_turn_comes() -> None:
    calls = Calls(make_gate(1))
    learn(calls.gate, 0.2)
    await calls.started("a")
    late, patient = calls.start("a", 0.45), calls.start("a", LONG)
    await asyncio.sleep(0.1)
    await calls.end_one()
    with pytest.raises(Overloaded):
        await late
    await patient
    assert calls.begun["a"] == 2


async def test_a_call_whose_client_goes_while_it_waits_leaves_no_trace() -> None:
    calls = Calls(make_gate(1))
    tasks = await calls.started("a", "b", "b", "c")
    for gone in (tasks[1], tasks[3]):
        gone.cancel()
    await asyncio.wait([tasks[1], tasks[3]])
    assert calls.gate.waiting == 1
    await calls.end_one()
    assert tasks[2].done()
    await calls.end_one()
    assert (calls.gate.running, calls.gate.waiting) == (0, 0)


async def test_a_call_whose_client_goes_as_its_turn_comes_leaves_its_place_to_the_next() -> None:
    calls = Calls(make_gate(1))
    tasks = await calls.started("a", "b", "c")
    calls.gate.leave(*calls.running.pop(0))
    tasks[1].cancel()
    await asyncio.wait([tasks[1], tasks[2]])
    assert tasks[1].cancelled()
    assert not tasks[2].cancelled()
    assert calls.gate.callers == {"c"}
    assert (calls.gate.running, calls.gate.waiting) == (1, 0)


async def test_others_run_in_the_place_of_stuck_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(gates, "_MOST_STUCK", 3)
    monkeypatch.setattr(gates, "_STILL_LOOKS", 1000)
    calls = Calls(make_gate(2))
    tasks = await calls.started(*["a"] * 6)
    await eventually(lambda: calls.begun["a"] == 5)
    await asyncio.sleep(0.2)
    assert [task.done() for task in tasks] == [True] * 5 + [False]
    while calls.running:
        await calls.end_one()
    assert (calls.gate.running, calls.gate.waiting) == (0, 0)


async def test_all_calls_run_while_none_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_MOST_STUCK", 0)
    calls = Calls(make_gate(2))
    tasks = await calls.started(*["a"] * 9)
    await asyncio.sleep(0.1)
    assert calls.begun["a"] == 2
    await eventually(lambda: calls.begun["a"] == 9)
    assert all(task.done() for task in tasks)
    while calls.running:
        await calls.end_one()
    assert (calls.gate.running, calls.gate.waiting, calls.gate.callers) == (0, 0, set())


async def test_no_call_runs_above_the_limit_while_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_MOST_STUCK", 0)
    calls = Calls(make_gate(2))
    await calls.started(*["a"] * 9)
    for ended in range(1, 6):
        await asyncio.sleep(0.1)
        assert calls.begun["a"] == 1 + ended
        await calls.end_one()


async def test_a_call_that_would_wait_for_too_long_is_refused_when_it_comes() -> None:
    calls = Calls(make_gate(1, queue_size=10_000, queue_seconds=0.2))
    first = await calls.started(*["flood"] * 100)
    for _ in range(30):
        await asyncio.sleep(0.01)
        if calls.running:
            await calls.end_one()
    # About twenty calls start in a fifth of a second, so most of these cannot.
    more = await calls.started(*["flood"] * 100)
    assert sum(1 for task in more if task.done() and isinstance(task.exception(), Overloaded)) > 50
    assert calls.gate.would_refuse("flood", None)
    assert not calls.gate.would_refuse("polite", None)
    assert {type(task.exception()) for task in first if task.done()} <= {type(None), Overloaded}


async def test_the_gate_keeps_nothing_about_callers_that_have_gone() -> None:
    calls = Calls(make_gate(1))
    await calls.started(*(f"caller-{number}" for number in range(10)))
    while calls.running:
        await calls.end_one()
    assert not calls.gate.callers
