"""The `commerce` command as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.passwords import FAST_PASSWORDS
from tests.support.paths import ROOT
from tests.support.waiting import eventually

COMMAND = [sys.executable, "-m", "service"]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    output: str
    errors: str

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log that tell of this event."""
        return _lines_of(event, self.errors)


class Process:
    """A running command, and what it has written so far."""

    def __init__(self, popen: subprocess.Popen[bytes], folder: Path) -> None:
        self._popen = popen
        self._folder = folder

    @property
    def pid(self) -> int:
        """Its process number, and that of the group that it leads."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def output(self) -> str:
        """Return what it wrote to standard output."""
        return (self._folder / "output").read_text()

    def errors(self) -> str:
        """Return what it wrote to standard error."""
        return (self._folder / "errors").read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log that tell of this event."""
        return _lines_of(event, self.errors())

    async def until_logged(self, event: str) -> dict[str, Any]:
        """Wait until its log tells of this event, and return that line."""
        await eventually(lambda: self.logged(event) or not self.running)
        lines = self.logged(event)
        assert lines, f"ended with status {self._popen.returncode} before {event!r}: {self.errors()}"
        return lines[0]

    async def port(self) -> int:
        """Wait until it serves, and return its port."""
        port: int = (await self.until_logged("serving"))["port"]
        return port

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    async def end(self, seconds: float = 30) -> Finished:
        """Wait until it has ended by itself."""
        await eventually(lambda: not self.running, seconds)
        return Finished(self._popen.returncode, self.output(), self.errors())

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()
        self._popen.wait()


def _lines_of(event: str, errors: str) -> list[dict[str, Any]]:
    # What follows the last line break is still being written.
    lines = (line for line in errors.split("\n")[:-1] if line.startswith("{"))
    return [line for line in map(json.loads, lines) if line["event"] == event]


@asynccontextmanager
async def started(
    *arguments: str, database_url: str | None = None, tree: Path = ROOT, **settings: Any
) -> AsyncIterator[Process]:
    """Run the command, from another source tree if one is named, until the block ends.

    `settings` are those of the service in lower case.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMERCE_")}
    own = {f"COMMERCE_{name}".upper(): str(value) for name, value in {**FAST_PASSWORDS, **settings}.items()}
    environment = {**inherited, **own, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'client'}"}
    environment.pop("DATABASE_URL", None)
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
            popen = subprocess.Popen(  # noqa: ASYNC220 - returns as soon as the process runs
                [*COMMAND, *arguments],
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                # Ctrl-C in the terminal of the tests is not for it, and a test's own Ctrl-C not for the tests.
                start_new_session=True,
            )
        process = Process(popen, folder)
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def serving(database_url: str, port: int = 0, *, tree: Path = ROOT, **settings: object) -> AsyncIterator[Process]:
    """Run `commerce serve` until the block ends; it serves when the block begins."""
    async with started("serve", "--port", str(port), database_url=database_url, tree=tree, **settings) as process:
        await process.port()
        yield process


async def run(*arguments: str, database_url: str | None = None, **settings: Any) -> Finished:
    """Run the command to its end."""
    async with started(*arguments, database_url=database_url, **settings) as process:
        return await process.end()
