"""Run a coroutine in a process of its own, so that what makes the load does not slow down what measures it."""

import asyncio
import gc
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from tests.support.waiting import eventually

P = ParamSpec("P")
T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_SECONDS = 120.0


class Signals:
    """What a coroutine in a process of its own exchanges with the experiment.

    Attributes:
        begin: set when it shall begin, if the experiment says so.
        stop: set when it shall return its result.
    """

    def __init__(self, counter: Any) -> None:
        self.begin = asyncio.Event()
        self.stop = asyncio.Event()
        self._counter = counter

    def count(self) -> None:
        """Count something that the experiment waits for."""
        self._counter.value += 1


class Apart(Generic[T]):
    """A coroutine that runs in a process of its own."""

    def __init__(self, process: SpawnProcess, connection: Connection, counter: Any) -> None:
        self._process = process
        self._connection = connection
        self._counter = counter

    @property
    def counted(self) -> int:
        """How much it has counted so far."""
        return int(self._counter.value)

    async def until_counted(self, more: int, seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until it has counted some more."""
        goal = self.counted + more
        await eventually(lambda: self.counted >= goal or not self._process.is_alive(), seconds)
        if not self._process.is_alive():
            raise RuntimeError(f"the process ended with status {self._process.exitcode}; standard error has the cause")

    def begin(self) -> None:
        """Let it begin, if it waits for that."""
        self._connection.send("begin")

    async def result(self) -> T:
        """Let it stop, and return its result."""
        self._connection.send("stop")
        return await self.ended()

    async def ended(self) -> T:
        """Wait until it has ended by itself, and return its result."""
        try:
            result: T = await asyncio.to_thread(self._connection.recv)
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"the process ended with status {self._process.exitcode}; standard error has the cause"
            ) from None
        return result


@asynccontextmanager
async def apart(
    work: Callable[Concatenate[Signals, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> AsyncIterator[Apart[T]]:
    """Run a coroutine in a process of its own until the block ends, then kill the process.

    The function must be that of a module, and its arguments and result must be picklable.
    """
    ours, theirs = _SPAWN.Pipe()
    counter = _SPAWN.Value("q", lock=False)
    process = _SPAWN.Process(target=_main, args=(theirs, counter, work, args, kwargs), daemon=True)
    process.start()
    # So that reading ours ends when the process ends.
    theirs.close()
    try:
        yield Apart(process, ours, counter)
    finally:
        process.kill()
        process.join()
        ours.close()
        process.close()


def _main(connection: Connection, counter: Any, work: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> None:
    # A full collection of all modules takes up to 100 ms, which would count as time that the server took.
    gc.freeze()
    asyncio.run(_run(connection, counter, work, args, kwargs))


async def _run(
    connection: Connection, counter: Any, work: Callable[..., Awaitable[Any]], args: Any, kwargs: Any
) -> None:
    signals = Signals(counter)
    loop = asyncio.get_running_loop()

    def receive() -> None:
        try:
            begins = connection.recv() == "begin"
        except EOFError:
            # The experiment was killed.
            begins = False
        if begins:
            signals.begin.set()
        else:
            loop.remove_reader(connection.fileno())
            signals.stop.set()

    loop.add_reader(connection.fileno(), receive)
    result = await work(signals, *args, **kwargs)
    connection.send(result)
