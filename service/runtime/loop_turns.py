"""Turns of the event loop for work that takes long in one piece."""

import asyncio


class LoopTurns:
    """Lets one piece of work begin in a turn of the event loop, so that other work runs between the pieces.

    Without it, all pieces that can begin in the same turn run one after the other, and every other call waits for all
    of them, and again in each turn that it needs.
    """

    def __init__(self) -> None:
        self._taken = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn, in the order of arrival; the work begins without waiting for anything else."""
        await self._taken.acquire()
        asyncio.get_running_loop().call_soon(self._taken.release)
