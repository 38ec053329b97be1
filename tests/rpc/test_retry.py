import asyncio
import math
import time

import pytest

from service.application.ports.errors import (
    CommitTimedOut,
    Contention,
    DatabaseUnavailable,
    OutcomeUnknown,
    Overloaded,
)
from service.domain.errors import UserNotFound
from service.rpc.retry import BACKOFF, MAX_ATTEMPTS, retried, shielded_tasks
from tests.support.logs import Log


class Attempts:
    """Raises these errors one after the other, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


async def run(attempts: Attempts, seconds: float = math.inf, *, has_request_id: bool = True) -> str:
    return await retried(attempts, lambda: seconds, outcome_known_by_repeating=has_request_id)


async def test_what_another_transaction_or_an_outage_stopped_is_tried_again() -> None:
    assert await run(attempts := Attempts(Contention(), DatabaseUnavailable())) == "done"
    assert attempts.count == MAX_ATTEMPTS


async def test_the_last_error_is_raised_after_the_last_attempt() -> None:
    attempts = Attempts(Contention(), Contention(), DatabaseUnavailable(), Contention())
    with pytest.raises(DatabaseUnavailable):
        await run(attempts)
    assert attempts.count == MAX_ATTEMPTS


async def test_an_overloaded_server_is_not_asked_again() -> None:
    attempts = Attempts(Overloaded())
    with pytest.raises(Overloaded):
        await run(attempts)
    assert attempts.count == 1


async def test_without_time_for_a_pause_the_error_is_raised() -> None:
    attempts = Attempts(Contention())
    with pytest.raises(Contention):
        await run(attempts, seconds=0.01)
    assert attempts.count == 1


async def test_an_unknown_outcome_is_asked_for_again_only_if_that_is_safe() -> None:
    assert await run(Attempts(OutcomeUnknown())) == "done"
    attempts = Attempts(OutcomeUnknown())
    with pytest.raises(OutcomeUnknown):
        await run(attempts, has_request_id=False)
    assert attempts.count == 1


@pytest.mark.parametrize("later", [Overloaded, DatabaseUnavailable, Contention])
async def test_an_unknown_outcome_stays_unknown_if_no_later_attempt_tells_it(later: type[Exception]) -> None:
    # Each of the later errors says by itself that nothing was written, which may be false of the first attempt.
    with pytest.raises(OutcomeUnknown):
        await run(Attempts(OutcomeUnknown(), later(), later()))


async def test_a_commit_that_times_out_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown):
        await run(Attempts(CommitTimedOut()), has_request_id=False)


def test_there_are_three_attempts_with_the_documented_pauses_between_them() -> None:
    # docs/architecture.md, "Where retries are".
    assert MAX_ATTEMPTS == 3
    for failures, longest in ((1, 0.08), (2, 0.32)):
        pauses = [BACKOFF.pause(failures) for _ in range(300)]
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert min(pauses) < 0.6 * longest
        assert max(pauses) > 0.9 * longest


async def test_a_retry_waits_first_and_is_logged(log: Log) -> None:
    began = time.monotonic()
    assert await run(Attempts(DatabaseUnavailable(), Contention())) == "done"
    assert time.monotonic() - began >= (0.08 + 0.32) / 2
    lines = log.lines(event="retrying")
    assert [line["attempt"] for line in lines] == [1, 2]
    assert ["database" in line["reason"] for line in lines] == [True, False]
    assert [0.04 <= line["pause_seconds"] <= 0.08 for line in lines] == [True, False]
    assert all(line["pause_seconds"] == round(line["pause_seconds"], 3) for line in lines)


@pytest.mark.parametrize(("seconds", "attempts"), [(0.04, 1), (0.09, 2)])
async def test_an_attempt_begins_only_if_time_is_left_after_its_pause(seconds: float, attempts: int) -> None:
    failing = Attempts(Contention(), Contention(), Contention())
    with pytest.raises(Contention):
        await run(failing, seconds=seconds)
    assert failing.count == attempts


async def test_an_unknown_outcome_names_its_cause() -> None:
    last = Overloaded()
    with pytest.raises(OutcomeUnknown) as raised:
        await run(Attempts(OutcomeUnknown(), last))
    assert raised.value.__cause__ is last


@pytest.mark.parametrize(("error", "is_logged"), [(UserNotFound(), False), (Contention(), False), (ValueError(), True)])
async def test_of_a_task_only_a_failure_without_a_status_is_logged(
    log: Log, error: Exception, *, is_logged: bool
) -> None:
    tasks, go_on = shielded_tasks(), asyncio.Event()

    async def fail() -> None:
        await go_on.wait()
        raise error

    caller = asyncio.create_task(tasks.run(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    go_on.set()
    await tasks.drain()
    assert bool(log.lines(level="error")) is is_logged
