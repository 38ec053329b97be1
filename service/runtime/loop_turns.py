"""Turns of the event loop for work that takes long in one piece."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# Rests are saved up until they take so many seconds: timers are not more exact.
_SHORTEST_REST = 0.002


class LoopTurns:
    """Lets one piece of work begin in a turn of the event loop, so that other work runs between the pieces.

    Without it, all pieces that can begin in the same turn run one after the other, and every other call waits for all
    of them, and again in each turn that it needs.

    Args:
        share: the part of the time for which the event loop may be busy with pieces, and with what runs beside them,
            while several wait for their turn.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._taken = asyncio.Lock()
        self._waiting = 0
        # Seconds of rest for each second of work, and how long to rest.
        self._rest_for_work = 1 / share - 1
        self._rest = 0.0

    async def take(self, rest: float = 0.0) -> None:
        """Wait for a turn, in the order of arrival; the work begins without waiting for anything else.

        Args:
            rest: how many seconds no other piece begins, for work that goes on after this turn.
        """
        self._waiting += 1
        try:
            await self._taken.acquire()
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        loop.call_soon(self._release, loop.time(), rest)

    def _release(self, began: float, rest: float) -> None:
        loop = asyncio.get_running_loop()
        self._rest += rest
        if self._waiting and self._rest_for_work:
            self._rest += (loop.time() - began) * self._rest_for_work
        if self._rest < _SHORTEST_REST:
            self._taken.release()
        else:
            loop.call_later(self._rest, self._taken.release)
            self._rest = 0.0


async def in_turns(items: Sequence[T], size: int) -> AsyncIterator[Sequence[T]]:
    """Yield the items, so many at a time, each time in another turn of the event loop."""
    for first in range(0, len(items), size):
        if first:
            await asyncio.sleep(0)
        yield items[first : first + size]
