"""Real processes of the service, to be killed."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.paths import ROOT

PATIENCE_SECONDS = 60


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Running:
    """A process whose standard error is kept, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    async def says(self, words: str) -> None:
        """Wait until a line has these words."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(words in line for line in list(self.lines)):
                assert self.process.returncode is None, self.lines
                await asyncio.sleep(0.02)

    async def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, and return the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await self.process.wait()
            await self._reader
        return status


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncIterator[Running]:
    """Run a command until the block ends, then kill it."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "client")])
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    started = Running(process)
    try:
        yield started
    finally:
        await started.end()


def commerce(*arguments: str) -> tuple[str, ...]:
    """Return the command line of the service's own command."""
    return (sys.executable, "-m", "service", *arguments)
