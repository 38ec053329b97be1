"""One worker: a process that is started, says that it is ready, and ends."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence

from service.runtime.worker_channel import ASK, LENGTH, MAX_BYTES, MAX_REPORT_BYTES, encoded_task, problem_of

# A worker that is not ready by then hangs: it waits for nothing that takes nearly as long.
START_SECONDS = 60.0


class StartFailed(Exception):
    """A worker is not ready. The message says why, in one line.

    Attributes:
        is_named: whether the worker itself has named the reason. Otherwise it has ended, or hangs.
    """

    def __init__(self, reason: str, *, is_named: bool) -> None:
        super().__init__(reason)
        self.is_named = is_named


class Worker:
    """A worker process, from the view of its parent.

    It has a session of its own, so that Ctrl-C in a terminal reaches only the parent, which then stops it.

    Args:
        number: of the worker, from 1.
        command: the program and its arguments, to which the descriptor of the channel is added.
        task: what the worker shall do (`service.runtime.worker_channel`).

    Attributes:
        pid: its process id.
        ended: its exit status once it has ended; the negative number of the signal if one has ended it.
        lifetime: how many seconds it has lived, once it has ended.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, number: int, command: Sequence[str], task: dict[str, object]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.ended: asyncio.Future[int] = loop.create_future()
        self.lifetime = 0.0
        self._started_at = loop.time()
        self._stopping = False
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._channel.settimeout(0)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reports: asyncio.Task[None] | None = None
        self._task = encoded_task(task)

    async def started(self) -> None:
        """Give the worker its task, and wait until it is ready; a worker that hangs is killed; raises StartFailed."""
        try:
            async with asyncio.timeout(START_SECONDS):
                answer = await self._answer()
        except TimeoutError:
            self.kill()
            raise StartFailed(f"it was not ready after {START_SECONDS:.0f} s", is_named=False) from None
        if not answer:
            raise StartFailed(f"{describe_end(await asyncio.shield(self.ended))} before it was ready", is_named=False)
        if problem := problem_of(answer):
            raise StartFailed(problem, is_named=True)

    async def _answer(self) -> bytes:
        """Return the line that the worker sends, or nothing if it ends without one."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._channel, limit=MAX_BYTES)
        try:
            self._writer.write(self._task)
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            # It has ended without reading its task, or sends something that is no line.
            return b""
        return line if line.endswith(b"\n") else b""

    def take_reports(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        """Take the reports of a worker that is ready, until it has ended.

        Args:
            received: called with each report.
            ended: called after the last one.
        """
        if self._reader:
            self._reports = asyncio.create_task(self._take_reports(self._reader, received, ended))

    def ask_for_report(self) -> None:
        """Ask the worker for a report, if it has not ended."""
        if self._reports and not self._reports.done() and self._writer:
            self._writer.write(ASK)

    async def _take_reports(
        self, reader: asyncio.StreamReader, received: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        try:
            while (length := LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]) <= MAX_REPORT_BYTES:
                received(await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            # The worker has ended. What it sent last has been read.
            pass
        finally:
            ended()
            self._close()

    def _close(self) -> None:
        (self._writer or self._channel).close()

    def drain(self) -> None:
        """Let the worker drain; only the first time, because to any other process a second signal means to stop."""
        if not self._stopping:
            self._stopping = True
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker immediately."""
        self._stopping = True
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # Until the worker is reaped, which `on_end` tells, its process id belongs to no other process.
        if not self.ended.done():
            self._process.send_signal(number)

    def on_end(self, status: int) -> None:
        """Note the exit status of the process, which has been reaped."""
        # Popen would otherwise wait for a process that no longer exists.
        self._process.returncode = status
        self.lifetime = asyncio.get_running_loop().time() - self._started_at
        if self._reports is None or self._reports.done():
            self._close()
        # Otherwise, its last report may not have been read yet.
        self.ended.set_result(status)


def describe_end(status: int) -> str:
    """Return how a process ended, given its exit status or the negative number of a signal.

    >>> describe_end(1), describe_end(-9)
    ('it ended with status 1', 'it was ended by SIGKILL')
    """
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        # A real-time signal.
        return f"it was ended by signal {-status}"
