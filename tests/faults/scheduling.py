"""What the machine itself takes from processes that want to run."""

import asyncio
import time

from tests.faults.apart import Signals

_PAUSE_SECONDS = 0.005


async def longest_delay(signals: Signals) -> float:
    """Wake up all the time until told to stop; return by how many seconds the latest wake-up was late."""
    longest = 0.0
    while not signals.stop.is_set():
        due = time.monotonic() + _PAUSE_SECONDS
        await asyncio.sleep(_PAUSE_SECONDS)
        longest = max(longest, time.monotonic() - due)
    return longest
