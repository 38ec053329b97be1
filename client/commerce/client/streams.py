"""What both clients know of streams: their options, and when a stream that broke is opened again."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, TypedDict, cast

from grpc import StatusCode

from commerce.client.errors import ClientTimeout, CredentialsError, UnauthenticatedCaller, Unavailable
from commerce.client.failures import Failure, Outcome
from commerce.client.retries import TRANSIENT_CODES, TRANSIENT_REASONS, RetryBudget, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from commerce.client.failures import CommerceError
    from commerce.client.options import Options, ReadPreference
    from commerce.client.values import Id

_log = logging.getLogger("commerce.client")
_REASONS = TRANSIENT_REASONS | {"SLOW_CONSUMER", "EXPORT_STALLED"}
# Proxies and HTTP/2 itself end a long stream with INTERNAL, too.
_CODES = TRANSIENT_CODES | {StatusCode.INTERNAL}
_DEFAULT_POLICY = RetryPolicy()
# How long a call of an import waits for a token.
TOKEN_SECONDS = 30.0


class StreamOptions(TypedDict, total=False):
    """Options of imports, exports and watches, which have no time-out of their own.

    Attributes:
        on_behalf_of: the id of the user for whom the caller acts; needs a permission.
        grpc_metadata: further metadata.
        retry: the pauses before a stream that broke is opened again, and how often that is tried in a row.
    """

    on_behalf_of: Id | None
    grpc_metadata: Mapping[str, str | bytes]
    retry: RetryPolicy


class ExportOptions(StreamOptions, total=False):
    """Options of exports.

    Attributes:
        read_preference: whether a replica may answer.
    """

    read_preference: ReadPreference | None


def retry_policy(options: Options, *, kind: type[StreamOptions] = StreamOptions) -> RetryPolicy | None:
    """Return the retry policy among the options of a stream; raises TypeError if a stream has no such option."""
    if wrong := options.keys() - kind.__annotations__.keys():
        raise TypeError(f"a stream has no option {', '.join(sorted(wrong))}")
    return cast("StreamOptions", options).get("retry")


def stalled(path: str, seconds: float, x_request_id: str) -> ClientTimeout:
    """Return the error of a stream on which nothing has arrived for some seconds."""
    failure = Failure(
        message=f"nothing has arrived for {seconds:g} s",
        code=StatusCode.DEADLINE_EXCEEDED,
        outcome=Outcome.NOT_WRITTEN,
        method=path,
        x_request_id=x_request_id,
    )
    return ClientTimeout(failure)


def ended_early(path: str) -> Unavailable:
    """Return the error of a stream that has ended although it has no end."""
    message = "the stream was ended, perhaps by a proxy"
    return Unavailable(Failure(message=message, code=StatusCode.UNAVAILABLE, outcome=Outcome.NOT_WRITTEN, method=path))


def is_lost(error: CommerceError) -> bool:
    """Return whether a stream may go on after this error, on another connection or later."""
    if not error.failure.may_retry:
        return False
    if isinstance(error, ClientTimeout):
        return True
    return error.reason in _REASONS if error.reason else error.code in _CODES


def refuses_token(error: CommerceError) -> bool:
    """Return whether the server refused the token of a call."""
    return isinstance(error, UnauthenticatedCaller) and error.credential == "bearer token"


class Reconnects:
    """The attempts to go on with a stream that broke, each after a pause (full jitter).

    Args:
        policy: the pauses, and how many attempts fail in a row before the error is raised.
        budget: of retries, which all calls of a client share.
        first: seconds that the first connection may take.
        later: seconds that it may take until a stream that has worked goes on; None for no limit.
        clock: returns seconds.
        jitter: returns a random number from 0 to 1.

    Attributes:
        attempts: how many have failed since something arrived.
    """

    def __init__(
        self,
        policy: RetryPolicy | None,
        budget: RetryBudget,
        *,
        first: float | None,
        later: float | None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy, self._budget = policy or _DEFAULT_POLICY, budget
        self._limit, self._later = first, later
        self._clock, self._jitter = clock, jitter
        # When the outage began, or the first attempt: a stream may be read long after it was made.
        self._since: float | None = None
        # The last error of this outage that was not a time-out of this client.
        self._last: CommerceError | None = None
        self._is_waiting = True
        self._has_worked = False
        self.attempts = 0

    def succeeded(self) -> None:
        """Say that something has arrived."""
        self.attempts, self._limit = 0, self._later
        self._last, self._is_waiting, self._has_worked = None, False, True

    def time_left(self) -> float:
        """Return how many seconds the current attempt may take until something arrives."""
        if not self._is_waiting or self._limit is None:
            return float("inf")
        if self._since is None:
            self._since = self._clock()
        return max(0.0, self._since + self._limit - self._clock())

    def pause(self, error: CommerceError) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises:
            CommerceError: the error, because another attempt would not help, or has taken too long.
        """
        if not self._is_waiting:
            self._since, self._is_waiting = self._clock(), True
        self.attempts += 1
        if not isinstance(error, ClientTimeout):
            self._last = error
        # The source of the tokens may fail for a while, too.
        may_pass = is_lost(error) or (self._has_worked and isinstance(error, CredentialsError))
        if not may_pass or self.attempts == self._policy.max_attempts:
            raise self._final(error)
        backoff = self._jitter() * self._policy.backoff(self.attempts)
        seconds = max(backoff + (error.retry_after or 0.0), self._budget.take())
        if seconds >= self.time_left():
            self._budget.give_back()
            raise self._final(error)
        level = logging.WARNING if self.attempts == 1 else logging.INFO
        _log.log(level, "%s; it goes on in %.1f s", str(error), seconds, extra={"error": error})
        return seconds

    def _final(self, error: CommerceError) -> CommerceError:
        # A time-out of this client says less than what happened before it.
        final = self._last if isinstance(error, ClientTimeout) and self._last is not None else error
        final = final.with_failure(attempts=self.attempts)
        # The caller may begin again.
        self.attempts, self._last, self._is_waiting = 0, None, False
        return final
