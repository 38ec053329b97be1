import math

import pytest

from service.application.ports.errors import (
    CommitTimedOut,
    Contention,
    DatabaseUnavailable,
    OutcomeUnknown,
    Overloaded,
)
from service.rpc.retry import MAX_ATTEMPTS, retried


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
