"""Settings of a serving process in the operating system and in Python's memory management."""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

# Python's default is to search for reference cycles after every 700 new objects. Calls create so many in an instant,
# and hardly any of them are in cycles.
_OBJECTS_BETWEEN_COLLECTIONS = 20_000
# How often the CPU use is looked at, and which share of one processor is much.
_LOOK_SECONDS = 0.25
_BUSY_SHARE = 0.75
# After so many looks without much use, load is over. With one, pauses in a load that comes in bursts would end it.
_QUIET_LOOKS = 8
# A nice value that is 10 higher gives a thread about a tenth of the CPU share, when both want to run.
_NICE_INCREMENT = 10


def use_batch_scheduling() -> None:
    """Set the scheduling policy SCHED_BATCH, which keeps gRPC's threads from preempting the event loop's thread.

    gRPC's threads wake up for every call. The policy applies to the calling thread and to threads that it starts later.
    It needs no privilege and takes no CPU share away from other processes. (GetUser takes 12 % less CPU.)
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class AdaptiveScheduling:
    """Sets SCHED_BATCH only while the event loop uses much of a processor, and otherwise the default policy.

    A thread with SCHED_BATCH waits until other threads that want the processor have used up their time slices. That
    saves CPU while they are threads of this process, and costs latency while they are threads of other processes. (At
    300 calls per second beside one busy process per processor, p50 falls from 4.96 to 0.47 ms; at saturation the CPU
    per call is within 2 % of permanent SCHED_BATCH.)

    As long, it also lowers the priority of gRPC's polling thread (`lower_polling_thread_priority`), if the process may
    raise it again afterwards: as root, with CAP_SYS_NICE, or within RLIMIT_NICE.

    A process that was started with another policy keeps it.

    Args:
        cpu_time: returns the seconds of CPU time that the event loop's thread has used. Not those of the process:
            threads that hash passwords would count, too, and then compete with gRPC's polling thread.
        clock: returns the time in seconds.
    """

    def __init__(
        self, cpu_time: Callable[[], float] = time.thread_time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cpu_time, self._clock = cpu_time, clock
        self._used, self._looked = cpu_time(), clock()
        self._policy = os.sched_getscheduler(0) if sys.platform == "linux" else None
        self._quiet_looks = _QUIET_LOOKS
        # The nice values that the polling threads had, by thread; and whether a priority may be raised again.
        self._lowered: dict[int, int] = {}
        self._may_raise = True

    async def run(self) -> None:
        """Look at the CPU use regularly, until cancelled; then set the default policy again."""
        if sys.platform != "linux" or self._policy != os.SCHED_OTHER:
            return
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                self.look()
        finally:
            self._set(os.SCHED_OTHER)

    def look(self) -> None:
        """Set the policy that fits the CPU use since the last look, and in the looks before if it was low."""
        if sys.platform == "linux":
            used, now = self._cpu_time(), self._clock()
            is_busy = used - self._used > _BUSY_SHARE * (now - self._looked)
            self._used, self._looked = used, now
            self._quiet_looks = 0 if is_busy else self._quiet_looks + 1
            self._set(os.SCHED_BATCH if self._quiet_looks < _QUIET_LOOKS else os.SCHED_OTHER)

    def _set(self, policy: int) -> None:
        if policy == self._policy:
            return
        self._policy = policy
        # The policy belongs to a thread; new threads inherit it.
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - a path is not needed
            # A thread may have ended meanwhile.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), policy, os.sched_param(0))
        if policy == os.SCHED_BATCH:
            self._lower_polling_threads()
        else:
            for polling, nice in self._lowered.items():
                with suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, polling, nice)
            self._lowered.clear()

    def _lower_polling_threads(self) -> None:
        for thread in _polling_threads() if self._may_raise else ():
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, nice + 1)
            try:
                os.setpriority(os.PRIO_PROCESS, thread, nice)
            except PermissionError:
                # The thread stays one step lower, which makes no difference.
                self._may_raise = False
                return
            os.setpriority(os.PRIO_PROCESS, thread, nice + _NICE_INCREMENT)
            self._lowered[thread] = nice


def lower_polling_thread_priority() -> None:
    """Raise the nice value of gRPC's polling thread, so that it runs when the event loop's thread pauses.

    The polling thread hands events to the event loop, which wakes it several times per call. Where the two share a
    processor, it would preempt the event loop each time, even with SCHED_BATCH. It has so little to do that it gets
    enough CPU time even where other processes want the processor. (With two processes on two cores, GetUser takes 9 %
    less CPU, ConfirmOrder 6 % less.)
    """
    if sys.platform == "linux":
        for thread in _polling_threads():
            # Relative to the current value: lowering a nice value needs a privilege.
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE_INCREMENT)


def _polling_threads() -> list[int]:
    # Python names a thread after the function that it runs.
    return [thread.native_id for thread in threading.enumerate() if "_poll_wrapper" in thread.name and thread.native_id]


def freeze_garbage_collector() -> None:
    """Exclude all objects that exist now from later searches for cycles, and make these searches less frequent.

    ListOrders takes 25 % less CPU, GetUser 6 % less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
