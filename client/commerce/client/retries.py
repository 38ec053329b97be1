"""When a call is repeated, and after how long: pure logic that the two clients share.

A call is repeated only if that is safe: it reads, or has a `request_id`, or the failed attempt says that it wrote
nothing. The pause is what the server asks for, or else random up to a bound that doubles with every attempt (full
jitter). One time limit covers all attempts and pauses together. A budget limits how many retries a client adds to the
load of a server that is in trouble.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from grpc import StatusCode

from commerce.client.errors import AlreadyExists, ClientTimeout, EtagMismatch, FailedPrecondition, NotFound
from commerce.client.failures import CommerceError, Outcome

# Reasons with which a repeated call may succeed without any change to it.
TRANSIENT_REASONS = frozenset(
    {"CONTENTION", "DATABASE_UNAVAILABLE", "ISSUER_UNAVAILABLE", "OUTCOME_UNKNOWN", "OVERLOADED", "SERVER_DRAINING"}
)
# The same without a reason: from gRPC, a proxy or the network. A server that stops answers CANCELLED.
TRANSIENT_CODES = frozenset({StatusCode.UNAVAILABLE, StatusCode.UNKNOWN, StatusCode.CANCELLED})
# Errors that a mutation returns only after it has looked for the response of an earlier attempt: that attempt wrote
# nothing then.
_CONCLUSIVE = (NotFound, AlreadyExists, FailedPrecondition, EtagMismatch)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How calls are repeated.

    Attributes:
        max_attempts: how many times a call is sent at most; 1 turns retries off. None for no limit but the time-out.
        initial_backoff: upper bound of the first pause, in seconds.
        max_backoff: upper bound of every pause, in seconds, unless the server asks for a longer one.
    """

    max_attempts: int | None = None
    initial_backoff: float = 0.1
    max_backoff: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")
        if not 0 < self.initial_backoff <= self.max_backoff:
            raise ValueError("initial_backoff must be greater than 0, and at most max_backoff")

    def backoff(self, attempt: int) -> float:
        """Return the upper bound of the pause after an attempt, in seconds; the first attempt is 1."""
        return min(self.max_backoff, self.initial_backoff * 2.0 ** min(attempt - 1, 60))


NO_RETRIES = RetryPolicy(max_attempts=1)


class RetryBudget:
    """Spreads the retries of a client over time, so that they do not multiply the load of a server in trouble.

    Each retry takes a token. Tokens come back with time and with every call that succeeds. Without a token, a retry
    waits for its turn; no call fails because of it before its own time is over. Safe for use by several threads.

    Args:
        burst: how many retries may be sent without waiting.
        per_second: how many tokens come back each second.
        per_success: the part of a token that comes back with every successful call.
        clock: returns seconds.
    """

    def __init__(
        self,
        burst: float = 100,
        per_second: float = 20,
        per_success: float = 0.2,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if burst < 1 or per_second <= 0 or per_success < 0:
            raise ValueError("burst must be at least 1, per_second greater than 0, and per_success not negative")
        self._burst, self._per_second, self._per_success = burst, per_second, per_success
        self._clock = clock
        self._lock = Lock()
        self._tokens = burst
        self._since = clock()

    def take(self) -> float:
        """Take a token for a retry; returns how many seconds it must wait for its turn."""
        with self._lock:
            self._refill()
            self._tokens -= 1
            return max(0.0, -self._tokens / self._per_second)

    def give_back(self) -> None:
        """Give back the token of a retry that is not sent."""
        with self._lock:
            self._tokens = min(self._burst, self._tokens + 1)

    def succeeded(self) -> None:
        """Count a successful call."""
        # Without the lock while no token is missing, which is what happens nearly always.
        if self._tokens < self._burst:
            with self._lock:
                self._tokens = min(self._burst, self._tokens + self._per_success)

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_second)
        self._since = now


class Attempts:
    """The attempts of one call.

    Args:
        policy: when to repeat it.
        budget: shared by all calls of a client.
        total: seconds for all attempts and pauses together.
        each: seconds for each attempt; None for no limit but the total.
        repeatable: whether a second attempt has no second effect.
        clock: returns seconds.
        jitter: returns a random number from 0 to 1.

    Attributes:
        number: of the current attempt, from 1.
    """

    __slots__ = (
        "_budget",
        "_clock",
        "_deadline",
        "_each",
        "_jitter",
        "_last",
        "_policy",
        "_repeatable",
        "_total",
        "_unknown",
        "number",
    )

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        *,
        total: float,
        each: float | None = None,
        repeatable: bool,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy, self._budget, self._each, self._repeatable = policy, budget, each, repeatable
        self._clock, self._jitter = clock, jitter
        self._total = total
        self._deadline = clock() + total
        # Whether an earlier attempt may have written something.
        self._unknown = False
        # The last failure that was not a time-out of this client.
        self._last: CommerceError | None = None
        self.number = 1

    def restart(self) -> None:
        """Let the time of the call begin again: its caller has done something else meanwhile."""
        self._deadline = self._clock() + self._total

    def time_left(self) -> float:
        """Return how many seconds are left in all."""
        return max(0.0, self._deadline - self._clock())

    def timeout(self) -> float:
        """Return how many seconds the current attempt may take."""
        left = self.time_left()
        return left if self._each is None else min(left, self._each)

    def succeeded(self) -> None:
        """Say that the current attempt succeeded."""
        self._budget.succeeded()

    def pause(self, error: CommerceError) -> float:
        """Return how many seconds to wait before the next attempt, which becomes the current one.

        Raises:
            CommerceError: the call has failed, and is not repeated.
        """
        final = self._final(error)
        if not self._may_repeat(error):
            raise final from final.__cause__
        seconds = self._seconds(error)
        seconds = max(seconds, self._budget.take())
        if seconds >= self.time_left():
            self._budget.give_back()
            raise final from final.__cause__
        self._unknown = final.outcome is not Outcome.NOT_WRITTEN
        if not isinstance(error, ClientTimeout):
            self._last = error
        self.number += 1
        return seconds

    def _final(self, error: CommerceError) -> CommerceError:
        """Return the error as the caller should see it if no other attempt follows."""
        outcome = error.outcome
        if self._unknown and outcome is Outcome.NOT_WRITTEN and not isinstance(error, _CONCLUSIVE):
            outcome = Outcome.UNKNOWN
        final = error.with_failure(outcome=outcome, attempts=self.number)
        if isinstance(error, ClientTimeout) and self._last is not None:
            final.__cause__ = self._last
        return final

    def _may_repeat(self, error: CommerceError) -> bool:
        if not (self._repeatable or error.outcome is Outcome.NOT_WRITTEN):
            return False
        if self._policy.max_attempts is not None and self.number >= self._policy.max_attempts:
            return False
        if not error.failure.may_retry:
            return False
        if error.code is StatusCode.DEADLINE_EXCEEDED:
            # Only the limit of this attempt can have passed, as long as there is time left.
            return self._each is not None and self.time_left() > 0
        return error.failure.reason in TRANSIENT_REASONS if error.failure.reason else error.code in TRANSIENT_CODES

    def _seconds(self, error: CommerceError) -> float:
        asked = error.failure.retry_after
        backoff = self._jitter() * self._policy.backoff(self.number)
        if asked is None:
            return backoff
        # The push-back of an overloaded server is different for each call already. Other times are the same for all
        # callers, which would come back together.
        return asked if error.failure.reason == "OVERLOADED" else asked + backoff
