"""A gate for one class of calls: some run, a few wait in turns of their callers, and the others are refused."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.runtime.adaptive_limit import AdaptiveLimit

# A call that has not ended after this many seconds waits for something, such as a lock: another may run in its place.
STUCK_SECONDS = 0.25
_MOST_STUCK = 32
# How often to look for late and stuck calls, while calls wait.
_LOOK_SECONDS = 0.05
# If no call has ended in this many looks, all calls may run. Looks are counted, not seconds: while other work keeps the
# event loop from looking, it also keeps calls from ending.
_STILL_LOOKS = 5
# A queue is nearly full if no more than a tenth of all places, or of the longest time to wait, is left.
_NEARLY = 0.1
# How much the time between two starts follows each of them.
_SMOOTHING = 0.05
# How many turns a caller saves up while it does not need them.
_MOST_SAVED_TURNS = 8
# Of how many callers the next turn is known before those of which it is no longer needed are forgotten.
_FEW_CALLERS = 32


# What a call waits for, the time until which it waits, and what it gets then.
_Waiting = tuple[asyncio.Future[int], float, Callable[[], Exception]]
_overloaded = partial(Overloaded, "admission")


class Gate:
    """Lets calls run while fewer than a limit are running.

    Calls above the limit wait, in a queue for each caller, and the callers take turns (start-time fair queueing, Goyal,
    Vin and Cheng 1996). A caller that needs fewer turns than others saves up some, so that its calls that come together
    need not take turns with theirs.

    Each caller may fill half of the places that the others leave free (Choudhury and Hahne, "Dynamic Queue Length
    Thresholds"), so a flood of one caller leaves places to others. A call that would wait for too long, as quickly as
    calls start now, is refused when it comes, and so is one that would not end by its deadline. A caller of which no
    call is running need not wait, within a reserve.

    Calls that are stuck do not count, up to a number: they would keep out others that need not wait for the same lock.
    If no call ends any more, all may run: they wait for a lock or for a server that does not answer, not for this
    process, and the limits of what they wait for decide what becomes of them.

    Args:
        limit: how many calls may run.
        reserve: how many calls may run above the limit, each of a caller without another one.
        queue_size: how many calls may wait.
        queue_seconds: how long a call may wait.
        clock: a monotonic clock.

    Attributes:
        limit: how many calls may run.
        running: how many calls are running, without those that are stuck.
        waiting: how many calls are waiting.
    """

    def __init__(
        self,
        limit: AdaptiveLimit,
        *,
        reserve: int,
        queue_size: int,
        queue_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limit = limit
        self.waiting = 0
        self._reserve = reserve
        self._queue_size = queue_size
        self._queue_seconds = queue_seconds
        self._clock = clock
        self._last_ticket = 0
        # The average time between two calls that start after they have waited, and when the last one did.
        self._interval = 0.0
        self._last_start = 0.0
        # How often it has been looked since a call ended, or since calls wait.
        self._looks = 0
        # When each running call began, by its ticket, the oldest first; without those that are stuck.
        self._began: dict[int, float] = {}
        self._stuck: set[int] = set()
        # The number of running calls by caller, and the queues of the callers that have one.
        self._of_caller: dict[str, int] = {}
        self._queues: dict[str, deque[_Waiting]] = {}
        # The callers whose calls wait, as a heap: the next turn of each, and a number that orders those with the same.
        self._turns: list[tuple[float, int, str]] = []
        # The turn that callers have reached who always have calls, and the next one of each that took one lately.
        self._turn = 0.0
        self._next_turn: dict[str, float] = {}
        self._most_known = _FEW_CALLERS
        self._arrivals = 0
        self._looking: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """How many calls are running, without those that are stuck."""
        return len(self._began)

    @property
    def callers(self) -> set[str]:
        """The callers of which calls are running or waiting, and, while calls wait, of those that began lately."""
        return {*self._of_caller, *self._queues, *(self._next_turn if self.waiting else ())}

    def enter(self, caller: str, now: float) -> int:
        """Let a call run if it need not wait; returns its ticket, with which it must `leave`, or 0."""
        if self.waiting:
            # The limit may have grown. A call that comes later does not pass those that wait.
            self._start_waiting(now)
        running = len(self._began)
        if running < self.limit.value and not self.waiting:
            return self._start(caller, now)
        self.limit.reached = True
        if running < self.limit.value + self._reserve and caller not in self._of_caller and caller not in self._queues:
            if self.waiting:
                self._take_turn(caller, self._turn_of(caller))
            return self._start(caller, now)
        if not self.waiting and self._pass_over_stuck(now):
            return self._start(caller, now)
        return 0

    async def wait(self, caller: str, seconds_left: float | None) -> int:
        """Wait until a call may run, and return its ticket, with which it must `leave`.

        Args:
            caller: whose call it is.
            seconds_left: how long the call may still take; None without a limit.

        Raises:
            Overloaded: too many calls of this caller wait, or the call has waited for too long.
            DeadlineExceeded: the call has no time left.
        """
        if self._is_full(caller, 0) or (seconds_left is not None and self._is_too_late(caller, seconds_left)):
            raise _overloaded()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[int] = loop.create_future()
        if seconds_left is None or seconds_left > self._queue_seconds:
            waiting: _Waiting = (turn, self._clock() + self._queue_seconds, _overloaded)
        else:
            waiting = (turn, self._clock() + seconds_left, DeadlineExceeded)
        if not self.waiting:
            self._last_start = self._clock()
            self._looks = 0
            # Those that have calls running have saved up nothing.
            self._turn, self._next_turn = 0.0, dict.fromkeys(self._of_caller, 0.0)
        queue = self._queues.get(caller)
        if queue is None:
            queue = self._queues[caller] = deque()
            self._line_up(caller, self._turn_of(caller))
        queue.append(waiting)
        self.waiting += 1
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_SECONDS, self._look)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(caller, waiting)
            elif turn.exception() is None:
                # Its turn came at the same moment.
                self.leave(caller, turn.result())
            raise

    def leave(self, caller: str, ticket: int) -> None:
        """Let the next call run in the place of one that has ended."""
        if self._began.pop(ticket, None) is None:
            self._stuck.discard(ticket)
        left = self._of_caller[caller] - 1
        if left:
            self._of_caller[caller] = left
        else:
            del self._of_caller[caller]
        if self.waiting:
            self._looks = 0
            self._start_waiting(self._clock())

    def would_refuse(self, caller: str, seconds_left: float | None) -> bool:
        """Return whether a call of this caller that arrives now will be refused, or soon those after it.

        Soon, because others that have arrived are still on their way to the queue.
        """
        return self._is_full(caller, _NEARLY) or (seconds_left is not None and self._is_too_late(caller, seconds_left))

    def _is_full(self, caller: str, spare: float) -> bool:
        """Return whether only a spare part of the places, or of the longest time to wait, is left for a caller."""
        queue = self._queues.get(caller)
        if queue is None:
            return self.waiting >= self._queue_size * (1 - spare)
        length = len(queue)
        # The callers take turns.
        seconds = length * len(self._queues) * self._interval
        part = 1 - spare
        return length + self.waiting >= self._queue_size * part or seconds >= self._queue_seconds * part

    def _is_too_late(self, caller: str, seconds_left: float) -> bool:
        """Return whether a call that arrives now would not end within the time that it has left."""
        queue = self._queues.get(caller)
        seconds = len(queue) * len(self._queues) * self._interval if queue else 0.0
        return seconds + self.limit.usual_seconds > seconds_left

    def _turn_of(self, caller: str) -> float:
        """Return the next turn of a caller that does not wait: earlier than now, if it has saved up turns."""
        saved = self._turn - _MOST_SAVED_TURNS
        return max(saved, self._next_turn.get(caller, saved))

    def _take_turn(self, caller: str, turn: float) -> None:
        # By a share, because turns that others have saved up would never end while new callers come.
        self._turn = max(self._turn + 1 / len(self._queues), turn)
        self._next_turn[caller] = turn + 1
        if len(self._next_turn) > self._most_known:
            saved = self._turn - _MOST_SAVED_TURNS
            self._next_turn = {name: number for name, number in self._next_turn.items() if number > saved}
            # Rarely enough that it takes little of each turn.
            self._most_known = 2 * len(self._next_turn) + _FEW_CALLERS

    def _line_up(self, caller: str, turn: float) -> None:
        self._arrivals += 1
        heappush(self._turns, (turn, self._arrivals, caller))

    def _start(self, caller: str, now: float) -> int:
        self._last_ticket = ticket = self._last_ticket + 1
        self._began[ticket] = now
        self._of_caller[caller] = self._of_caller.get(caller, 0) + 1
        return ticket

    def _start_waiting(self, now: float) -> None:
        while self._turns and len(self._began) < self.limit.value:
            number, _, caller = heappop(self._turns)
            queue = self._queues[caller]
            turn, until, error = queue.popleft()
            self.waiting -= 1
            if turn.done():
                # Its caller has gone in this moment.
                pass
            elif until <= now:
                turn.set_exception(error())
            elif error is DeadlineExceeded and until - now < self.limit.usual_seconds:
                # It would not end in time, and those behind it would be late because of it.
                turn.set_exception(_overloaded())
            else:
                self._interval += (now - self._last_start - self._interval) * _SMOOTHING
                self._last_start = now
                self._take_turn(caller, number)
                number += 1
                turn.set_result(self._start(caller, now))
            if queue:
                self._line_up(caller, number)
            else:
                del self._queues[caller]

    def _pass_over_stuck(self, now: float) -> bool:
        """Stop counting stuck calls; returns whether another call may run."""
        while self._began and len(self._stuck) < _MOST_STUCK:
            ticket = next(iter(self._began))
            if now - self._began[ticket] < STUCK_SECONDS:
                break
            del self._began[ticket]
            self._stuck.add(ticket)
        return len(self._began) < self.limit.value

    def _look(self) -> None:
        """Refuse what has waited for too long, and start others in the place of stuck calls."""
        self._looking = None
        self._looks += 1
        now = self._clock()
        for caller in list(self._queues):
            # In a queue, the calls with the least time left need not be the first.
            late = [waiting for waiting in self._queues[caller] if waiting[1] <= now and not waiting[0].done()]
            for waiting in late:
                waiting[0].set_exception(waiting[2]())
                self._remove(caller, waiting)
        if self._looks < _STILL_LOOKS:
            self._pass_over_stuck(now)
        else:
            self._stuck.update(self._began)
            self._began.clear()
        self._start_waiting(now)
        if self.waiting:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _remove(self, caller: str, waiting: _Waiting) -> None:
        queue = self._queues.get(caller)
        if queue is None or waiting not in queue:
            # It has been passed over already.
            return
        queue.remove(waiting)
        self.waiting -= 1
        if not queue:
            del self._queues[caller]
            self._turns = [entry for entry in self._turns if entry[2] != caller]
            heapify(self._turns)
