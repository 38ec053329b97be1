"""The answer to calls that are refused for load: prepared, paced, counted.

A refusal must cost little, because a caller that is refused may call again. So its status is prepared, and it bypasses
the interceptors: of a call that is refused before it is read, only a count is logged.

gRPC itself takes much of the time that a refusal costs, so a flood of calls could keep a server busy with refusals
alone. Therefore refusals are paced: beyond a rate, they wait. A client has a limited number of calls in flight on a
connection, so it cannot call faster than it is answered.
"""

import asyncio
import random
from collections import Counter, deque
from itertools import cycle
from typing import NamedTuple

import structlog
from grpc import StatusCode
from grpc_status import rpc_status

from service.application.ports.errors import Full
from service.observability.metrics.calls import Calls
from service.rpc.status import OVERLOADED, overloaded

# Tells gRPC's clients when to repeat a call, in milliseconds, if they have a policy for retries (gRFC A6).
PUSHBACK = "grpc-retry-pushback-ms"
# When to retry: spread, so that those that are refused together do not come back together.
_RETRY_SECONDS = (0.5, 1.5)
_PREPARED = 64
# How many refusals are sent without waiting: 500 a second, which take about a twentieth of a processor.
TICK_SECONDS = 0.02
IN_A_TICK = 10
# No refusal waits longer than about this many ticks.
_MOST_TICKS = 50
# With more refusals waiting, none waits: each takes memory.
MOST_WAITING = 2000
LOG_SECONDS = 1.0
# The callers that a log line names.
_NAMED_CALLERS = 10

Trailers = tuple[tuple[str, str | bytes], ...]

log = structlog.get_logger()


class Refusal(NamedTuple):
    """A prepared status.

    Attributes:
        code: its code.
        number: the number of the code.
        message: its message.
        trailers: the trailing metadata with the details of the status and the time of the retry.
    """

    code: StatusCode
    number: int
    message: str
    trailers: Trailers


def _prepare(seconds: float) -> Refusal:
    status = overloaded(seconds)
    prepared = rpc_status.to_status(status)
    trailers = (*prepared.trailing_metadata, (PUSHBACK, str(int(seconds * 1000))))
    return Refusal(prepared.code, status.code, prepared.details, trailers)


_refusals = cycle([_prepare(random.uniform(*_RETRY_SECONDS)) for _ in range(_PREPARED)])  # noqa: S311 - spreads retries


def next_refusal() -> Refusal:
    """Return the status of the next call that is refused."""
    return next(_refusals)


class Refusals:
    """Paces the refusals of calls that are not read, and logs how many there are.

    Args:
        calls: the counts of calls, for metrics.

    Attributes:
        waiting: how many calls wait for their refusal.
    """

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls = calls
        self._left = IN_A_TICK
        self._closed = False
        self._turns: deque[asyncio.Future[None]] = deque()
        self._ticking: asyncio.TimerHandle | None = None
        self._logging: asyncio.TimerHandle | None = None
        self._by_method: Counter[str] = Counter()
        self._by_caller: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many calls wait for their refusal."""
        return len(self._turns)

    def turn(self, path: str, caller: str | None, full: Full) -> asyncio.Future[None] | None:
        """Count a call that is refused; returns what to wait for before it is answered, or None.

        Args:
            path: of the method.
            caller: the name of the caller, if it is known.
            full: what is full.
        """
        self._by_method[path] += 1
        if self._calls is not None:
            self._calls.of(path).refuse_unread("RESOURCE_EXHAUSTED", OVERLOADED, full)
        if caller is not None:
            self._by_caller[caller] += 1
        loop = asyncio.get_running_loop()
        if self._logging is None:
            self._logging = loop.call_later(LOG_SECONDS, self._log)
        if self._ticking is None:
            self._ticking = loop.call_later(TICK_SECONDS, self._tick)
        if self._left > 0 or self._closed or len(self._turns) >= MOST_WAITING:
            self._left -= 1
            return None
        turn = loop.create_future()
        self._turns.append(turn)
        return turn

    def close(self) -> None:
        """Let nothing wait any longer: the server stops."""
        self._closed = True
        self._release(len(self._turns))

    def _tick(self) -> None:
        used = self._left < IN_A_TICK
        self._left = max(0, IN_A_TICK - len(self._turns))
        self._release(max(IN_A_TICK, len(self._turns) // _MOST_TICKS))
        again = used or self._turns
        self._ticking = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick) if again else None

    def _release(self, count: int) -> None:
        while self._turns and count:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    def _log(self) -> None:
        self._logging = None
        log.warning(
            "refused calls",
            count=self._by_method.total(),
            by_method=dict(self._by_method),
            by_caller=dict(self._by_caller.most_common(_NAMED_CALLERS)),
        )
        self._by_method.clear()
        self._by_caller.clear()
