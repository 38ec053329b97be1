"""What the machine itself takes from processes that want to run, and how attackers leave it to the others."""

import asyncio
import os
import time
from pathlib import Path

from tests.faults.apart import Signals

_PAUSE_SECONDS = 0.005
_LOWEST_PRIORITY = 19


async def longest_delay(signals: Signals) -> float:
    """Wake up all the time until told to stop; return by how many seconds the latest wake-up was late."""
    longest = 0.0
    while not signals.stop.is_set():
        due = time.monotonic() + _PAUSE_SECONDS
        await asyncio.sleep(_PAUSE_SECONDS)
        longest = max(longest, time.monotonic() - due)
    return longest


def leave_processor_to_others() -> None:
    """Give this process the lowest priority, as if it ran on another machine than those that it attacks."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    lower_priority_of_session(os.getpid())


def lower_priority_of_session(leader: int) -> None:
    """Give a process that leads a session, with the other processes of the session, the lowest priority.

    The nice value alone is not enough: Linux divides the processors between sessions first, and the nice values count
    only within each (`sched(7)`, "The autogroup feature").
    """
    os.setpriority(os.PRIO_PROCESS, leader, _LOWEST_PRIORITY)
    group = Path(f"/proc/{leader}/autogroup")
    if group.exists():
        group.write_text(str(_LOWEST_PRIORITY))
