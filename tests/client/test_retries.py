"""When a call is repeated, and after how long, on a clock of the test's own."""

from typing import Any

import pytest
from commerce.client import NO_RETRIES, Outcome, RetryBudget, RetryPolicy
from commerce.client.errors import (
    ClientTimeout,
    CommerceError,
    DatabaseUnavailable,
    InsufficientCredit,
    Overloaded,
    SignInLimit,
    Unavailable,
)
from commerce.client.failures import Failure
from commerce.client.retries import Attempts
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def attempts(
    clock: Clock,
    *,
    policy: RetryPolicy | None = None,
    budget: RetryBudget | None = None,
    total: float = 30,
    each: float | None = None,
    repeatable: bool = True,
    jitter: float = 1.0,
) -> Attempts:
    return Attempts(
        policy or RetryPolicy(),
        budget or RetryBudget(clock=clock),
        total=total,
        each=each,
        repeatable=repeatable,
        clock=clock,
        jitter=lambda: jitter,
    )


def lost() -> Unavailable:
    return Unavailable(Failure(message="connection lost", code=StatusCode.UNAVAILABLE))


def refused(seconds: float = 0.7) -> Overloaded:
    failure = Failure(
        message="overloaded",
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason="OVERLOADED",
        retry_after=seconds,
        outcome=Outcome.NOT_WRITTEN,
    )
    return Overloaded(failure)


def timed_out() -> ClientTimeout:
    return ClientTimeout(Failure(message="Deadline Exceeded", code=StatusCode.DEADLINE_EXCEEDED))


def test_the_bound_of_the_pauses_doubles_up_to_the_maximum(clock: Clock) -> None:
    call = attempts(clock)
    assert [round(call.pause(lost()), 3) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert call.number == 8


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10_000))
def test_a_pause_is_random_from_nothing_to_its_bound(jitter: float, attempt: int) -> None:
    policy = RetryPolicy(initial_backoff=0.5, max_backoff=8)
    call = attempts(Clock(), policy=policy, jitter=jitter, total=100_000)
    call.number = attempt
    assert call.pause(lost()) == pytest.approx(jitter * policy.backoff(attempt))
    assert policy.backoff(attempt) == min(8, 0.5 * 2.0 ** min(attempt - 1, 100))


def test_the_push_back_of_an_overloaded_server_is_obeyed_to_the_letter(clock: Clock) -> None:
    assert attempts(clock, jitter=0.5).pause(refused(0.7)) == 0.7


def test_a_time_that_all_callers_get_is_spread(clock: Clock) -> None:
    failure = Failure(message="no database", code=StatusCode.UNAVAILABLE, reason="DATABASE_UNAVAILABLE", retry_after=1)
    assert attempts(clock, jitter=0.5).pause(DatabaseUnavailable(failure)) == 1.05


def test_a_server_that_forbids_a_retry_is_obeyed(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        attempts(clock).pause(lost().with_failure(may_retry=False))


@pytest.mark.parametrize(
    "error",
    [
        InsufficientCredit(Failure(message="", reason="INSUFFICIENT_CREDIT", outcome=Outcome.NOT_WRITTEN)),
        SignInLimit(Failure(message="", reason="SIGN_IN_LIMIT", retry_after=0.1, outcome=Outcome.NOT_WRITTEN)),
        CommerceError(Failure(message="too much metadata", code=StatusCode.RESOURCE_EXHAUSTED)),
        CommerceError(Failure(message="bug", code=StatusCode.INTERNAL)),
    ],
)
def test_what_would_fail_again_is_not_repeated(clock: Clock, error: CommerceError) -> None:
    with pytest.raises(type(error)) as raised:
        attempts(clock).pause(error)
    assert raised.value.failure.attempts == 1


def test_a_mutation_without_a_request_id_is_repeated_only_if_nothing_was_written(clock: Clock) -> None:
    call = attempts(clock, repeatable=False)
    assert call.pause(refused(0.7)) == 0.7
    with pytest.raises(Unavailable) as raised:
        call.pause(lost())
    assert (raised.value.outcome, raised.value.failure.attempts) == (Outcome.UNKNOWN, 2)


def test_nothing_written_by_the_last_attempt_does_not_speak_for_those_before(clock: Clock) -> None:
    call = attempts(clock, total=1)
    call.pause(lost())
    clock.now += 0.5
    with pytest.raises(Overloaded) as raised:
        call.pause(refused(0.7))
    assert raised.value.outcome is Outcome.UNKNOWN


def test_an_answer_of_the_service_itself_does(clock: Clock) -> None:
    call = attempts(clock)
    call.pause(lost())
    failure = Failure(message="", reason="INSUFFICIENT_CREDIT", outcome=Outcome.NOT_WRITTEN)
    with pytest.raises(InsufficientCredit) as raised:
        call.pause(InsufficientCredit(failure))
    assert raised.value.outcome is Outcome.NOT_WRITTEN


def test_a_pause_that_does_not_fit_into_the_time_left_is_not_begun(clock: Clock) -> None:
    budget = RetryBudget(burst=1, clock=clock)
    with pytest.raises(Overloaded):
        attempts(clock, total=0.6, budget=budget).pause(refused(0.7))
    # Nor is its token spent.
    assert budget.take() == 0


def test_an_attempt_has_its_own_time_limit_within_the_total(clock: Clock) -> None:
    call = attempts(clock, total=10, each=4, jitter=0)
    assert call.timeout() == 4
    clock.now += 4
    assert call.pause(timed_out()) == 0
    clock.now += 4
    assert call.timeout() == 2
    assert call.pause(timed_out()) == 0
    clock.now += 2
    with pytest.raises(ClientTimeout) as raised:
        call.pause(timed_out())
    assert raised.value.failure.attempts == 3
    assert call.timeout() == 0


def test_without_a_limit_for_an_attempt_the_total_is_final(clock: Clock) -> None:
    with pytest.raises(ClientTimeout):
        attempts(clock, total=10).pause(timed_out())


def test_a_time_out_names_the_failure_before_it(clock: Clock) -> None:
    call, before = attempts(clock, total=1, each=1), lost()
    call.pause(before)
    clock.now += 1
    with pytest.raises(ClientTimeout) as raised:
        call.pause(timed_out())
    assert raised.value.__cause__ is before


def test_retries_can_be_limited_or_turned_off(clock: Clock) -> None:
    call = attempts(clock, policy=RetryPolicy(max_attempts=2))
    call.pause(lost())
    with pytest.raises(Unavailable):
        call.pause(lost())
    with pytest.raises(Unavailable):
        attempts(clock, policy=NO_RETRIES).pause(lost())


def test_beyond_its_burst_the_budget_lets_retries_take_turns(clock: Clock) -> None:
    budget = RetryBudget(burst=2, per_second=10, per_success=0.5, clock=clock)
    assert [budget.take() for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    clock.now += 0.4
    assert [budget.take() for _ in range(3)] == pytest.approx([0, 0, 0.1])
    # Two for the retry that waits, and two for the next.
    for _ in range(4):
        budget.succeeded()
    assert budget.take() == pytest.approx(0)
    clock.now += 3600
    assert [budget.take() for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_a_turn_that_comes_too_late_ends_the_call_with_its_own_error(clock: Clock) -> None:
    budget = RetryBudget(burst=1, per_second=0.1, clock=clock)
    budget.take()
    with pytest.raises(Unavailable):
        attempts(clock, budget=budget, total=5).pause(lost())


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"initial_backoff": 0}, {"initial_backoff": 3}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("wrong", [{"burst": 0}, {"per_second": 0}, {"per_success": -1}])
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryBudget(**wrong)
