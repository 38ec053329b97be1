"""The signals that stop a process, as events."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


class StopSignals:
    """SIGTERM and SIGINT, which from now on set events of the running event loop instead of ending the process.

    Handlers are needed from the start on: the kernel does not deliver a signal without a handler to process 1 of a
    container, so an orchestrator would wait for a server that it asked to stop while it was starting.

    Args:
        repeatable: whether a second signal means something. Without, all signals after the first are ignored.

    Attributes:
        first: set by the first signal, which asks to drain.
        second: set by the second signal, which asks to stop immediately.
        hint: what the log tells the sender of the first signal; None if a second one means nothing.
    """

    def __init__(self, *, repeatable: bool = True) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.hint = "a second signal stops immediately" if repeatable else None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if not self.first.is_set():
            self.first.set()
        elif self.hint:
            self.second.set()

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run a coroutine, or cancel it at the first signal; returns whether it was completed."""
        return await _before(self.first, work)

    async def unless_stopped_twice(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run a coroutine, or cancel it at the second signal; returns whether it was completed."""
        return await _before(self.second, work)


async def _before(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            # Raises the error if the work failed.
            working.result()
            return True
        return False
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.wait({working, waiting})
