"""Processes beside the one that runs the tests: the `commerce` command and other programs."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import IO, Any

from tests.support.copies import Copy, can_copy, start_copy
from tests.support.passwords import FAST_PASSWORDS
from tests.support.paths import ROOT
from tests.support.waiting import eventually

# The `commerce` command, started by Python. Where none is named, it is a copy of a process (`tests.support.copies`).
COMMAND = (sys.executable, "-m", "service")
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class CommandResult:
    """The exit status and the output of a command."""

    status: int
    stdout: str
    stderr: str

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log with this event."""
        return _lines_of(event, self.stderr)


class Process:
    """A running program, and what it has written so far."""

    def __init__(self, popen: subprocess.Popen[bytes] | Copy, folder: Path) -> None:
        self._popen = popen
        self._folder = folder

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def stdout(self) -> str:
        """Return what it wrote to standard output."""
        return (self._folder / "stdout").read_text()

    def stderr(self) -> str:
        """Return what it wrote to standard error."""
        return (self._folder / "stderr").read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log with this event."""
        return _lines_of(event, self.stderr())

    async def until_logged(self, event: str) -> dict[str, Any]:
        """Wait until its log has this event, and return that line."""
        await eventually(lambda: self.logged(event) or not self.running, PATIENCE_SECONDS)
        lines = self.logged(event)
        assert lines, f"ended with status {self._popen.returncode} before {event!r}: {self.stderr()}"
        return lines[0]

    async def until_written(self, text: str) -> None:
        """Wait until it has written this text to standard error."""
        await eventually(lambda: text in self.stderr() or not self.running, PATIENCE_SECONDS)
        assert text in self.stderr(), f"ended with status {self._popen.returncode} before {text!r}: {self.stderr()}"

    async def port(self) -> int:
        """Wait until it serves, and return its port."""
        port: int = (await self.until_logged("serving"))["port"]
        return port

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    async def end(self, seconds: float = 30) -> CommandResult:
        """Wait until it has ended by itself."""
        await eventually(lambda: not self.running, seconds)
        return CommandResult(self._popen.wait(), self.stdout(), self.stderr())

    async def terminate(self) -> CommandResult:
        """Send it SIGTERM, and wait until it has ended."""
        self.send(signal.SIGTERM)
        return await self.end(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Kill it, and wait until it has ended."""
        self._popen.kill()
        self._popen.wait()


def _lines_of(event: str, log: str) -> list[dict[str, Any]]:
    # The text after the last line break is an incomplete line.
    lines = (line for line in log.split("\n")[:-1] if line.startswith("{"))
    return [line for line in map(json.loads, lines) if line["event"] == event]


def children(pid: int) -> list[int]:
    """Return the process ids of the children of a process, also of those that have ended and are not reaped."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def handles_sigterm(pid: int) -> bool:
    """Return whether a process handles SIGTERM by itself."""
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) & 1 << signal.SIGTERM - 1)


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def running_program(
    *command: str, environment: Mapping[str, str] = os.environ, tree: Path = ROOT
) -> AsyncIterator[Process]:
    """Run a program, in this or another source tree, until the block ends, then kill it."""

    def start(stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=tree,
            env=with_path(environment, tree),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # Ctrl-C in the tests' terminal must not reach the program, nor a Ctrl-C that a test sends the tests.
            start_new_session=True,
        )

    async with _running(start) as process:
        yield process


def with_path(environment: Mapping[str, str], tree: Path) -> dict[str, str]:
    """Return the environment of a program that imports the service and the client of a source tree."""
    return {**environment, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'client'}"}


@asynccontextmanager
async def _running(
    start: Callable[[IO[bytes], IO[bytes]], subprocess.Popen[bytes] | Copy],
) -> AsyncIterator[Process]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = Process(start(stdout, stderr), folder)
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def running_command(
    *arguments: str,
    database_url: str | None = None,
    tree: Path = ROOT,
    program: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
    **settings: Any,
) -> AsyncIterator[Process]:
    """Run the `commerce` command, or another `program` like it, until the block ends, then kill it.

    `variables` are further environment variables; given some, or another tree, Python is started (`COMMAND`).
    `settings` are those of the service in lower case; the command inherits none from the environment of the tests.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMMERCE_")}
    environment.pop("DATABASE_URL", None)
    environment |= variables
    for name, value in {**FAST_PASSWORDS, **settings}.items():
        environment[f"COMMERCE_{name}".upper()] = str(value)
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    if program or variables or tree != ROOT or not can_copy():
        running = running_program(*(program or COMMAND), *arguments, environment=environment, tree=tree)
    else:
        running = _running(partial(start_copy, arguments, ROOT, with_path(environment, ROOT)))
    async with running as process:
        yield process


@asynccontextmanager
async def serving(
    database_url: str,
    port: int = 0,
    *,
    tree: Path = ROOT,
    program: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> AsyncIterator[Process]:
    """Run `commerce serve` until the block ends; it serves when the block begins."""
    arguments = ("serve", "--port", str(port))
    async with running_command(
        *arguments, database_url=database_url, tree=tree, program=program, variables=variables, **settings
    ) as process:
        await process.port()
        yield process


async def run_command(
    *arguments: str,
    database_url: str | None = None,
    tree: Path = ROOT,
    program: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
    **settings: Any,
) -> CommandResult:
    """Run the `commerce` command, or another `program` like it, to its end."""
    async with running_command(
        *arguments, database_url=database_url, tree=tree, program=program, variables=variables, **settings
    ) as process:
        return await process.end()
