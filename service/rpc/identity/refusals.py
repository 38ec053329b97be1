"""Refused calls of unknown callers: the error, a count, and a log line."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import structlog

from service.domain.errors import UnauthenticatedCaller

# Refusals of one kind are logged once in this time; the line says how many there were.
LOG_PERIOD_SECONDS = 10.0

Credential = Literal["none", "bearer token", "API key", "client certificate"]
Problem = Literal["missing", "unknown", "expired"]

log = structlog.get_logger()


class Refusals:
    """Counts and logs calls that are refused because nobody is known to make them.

    Neither the error nor the log says what is wrong with a credential beyond `unknown` or `expired`, because that would
    help to forge one; and neither repeats it.

    Args:
        accepted: how callers can say who they are, in words, for the error.
        clock: returns seconds.

    Attributes:
        counts: the number of refused calls, by kind of credential and problem.
    """

    def __init__(self, accepted: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[tuple[Credential, Problem]] = Counter()
        self._accepted = _listed(accepted)
        self._clock = clock
        # For each kind of refusal, when its next line may be logged, and the count that the last line has included.
        self._next_line: dict[tuple[Credential, Problem], float] = {}
        self._logged: Counter[tuple[Credential, Problem]] = Counter()

    def error(self, credential: Credential, problem: Problem) -> UnauthenticatedCaller:
        """Count and log a refused call, and return its error."""
        kind = (credential, problem)
        self.counts[kind] += 1
        self._log(kind)
        match problem:
            case "missing":
                what = "the caller sent no credential"
            case "unknown":
                what = f"the {credential} is unknown or not valid here"
            case "expired":
                what = f"the {credential} has expired"
        message = f"{what}; this server accepts {self._accepted}"
        return UnauthenticatedCaller(message, {"credential": credential, "problem": problem})

    def _log(self, kind: tuple[Credential, Problem]) -> None:
        now = self._clock()
        if now < self._next_line.get(kind, now):
            return
        self._next_line[kind] = now + LOG_PERIOD_SECONDS
        count, self._logged[kind] = self.counts[kind] - self._logged[kind], self.counts[kind]
        log.warning("refused calls of unknown callers", credential=kind[0], problem=kind[1], calls=count)


def _listed(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} or {ways[-1]}"
