"""A limit for what is in memory for HTTP clients: bodies of requests, and responses that they have not read yet."""

import asyncio

from service.http.failures import refused_for_load

# Less is not counted: the limit on connections bounds it.
_SMALL_BYTES = 4 * 1024


class Memory:
    """Counts the bytes of all requests, or of all responses, together.

    Args:
        maximum: how many there may be.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.used = 0

    def share(self) -> "Share":
        """Return what the running task has of it, until the task ends."""
        share, task = Share(self), asyncio.current_task()
        if task:
            task.add_done_callback(lambda _: share.hold(0))
        return share


class Share:
    """What one task has of it."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._bytes = 0

    def hold(self, size: int) -> None:
        """Set how many bytes the task has; raises CallFailed (OVERLOADED) if all tasks together have too many."""
        counted = size if size > _SMALL_BYTES else 0
        others = self._memory.used - self._bytes
        # One is always allowed, however large requests and responses may be.
        if counted and others and others + counted > self._memory.maximum:
            raise refused_for_load()
        self._memory.used = others + counted
        self._bytes = counted
