"""Start and stop the servers that are compared, and measure their CPU time and memory."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.calls import GRPC, Protocol
from benchmarks.cpu import cpu_seconds, resident_bytes
from benchmarks.workloads import WORKLOADS, Calls

ROOT = Path(__file__).resolve().parents[1]
NODE = ROOT / "benchmarks" / "peers" / "node"
_START_SECONDS = 30
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Kind:
    """A server that can be measured; the variables PORT and DATABASE_URL tell it where to listen and to store."""

    name: str
    words: str
    command: Sequence[str | Path]
    # Python packages that it needs in addition to those of the service.
    packages: Sequence[str] = ()
    protocol: Protocol = GRPC
    # Workloads that it implements; empty means all workloads of its protocol.
    workloads: Sequence[str] = ()
    # Number of processes. Each gets as many connections and calls as a server with a single process.
    processes: int = 1

    @property
    def http1(self) -> bool:
        """Whether it speaks HTTP/1.1 instead of gRPC."""
        return self.protocol.http1

    def calls(self, workload: str) -> Calls | None:
        """Return the calls of a workload, or None if the server does not implement it."""
        if self.workloads and workload not in self.workloads:
            return None
        found = WORKLOADS[workload]
        return found.http if self.http1 else found.grpc

    def missing(self) -> str | None:
        """Return a message about what must be installed before the server can run, or None."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]} is not installed"
        if self.name == "node" and not (NODE / "node_modules").is_dir():
            return "its npm packages are not installed"
        return None


_PYTHON = (sys.executable, "-m")
KINDS = (
    Kind("commerce", "this service", (*_PYTHON, "service", "serve")),
    Kind("bare", "grpc.aio and asyncpg, written by hand", (*_PYTHON, "benchmarks.peers.bare")),
    Kind("guide", "grpc.aio and SQLAlchemy's ORM, as guides teach it", (*_PYTHON, "benchmarks.peers.guide")),
    Kind(
        "fastapi",
        "FastAPI, uvicorn and SQLAlchemy's ORM, with JSON",
        (*_PYTHON, "benchmarks.peers.fastapi_app"),
        packages=("fastapi", "uvicorn"),
        protocol=Protocol(http1=True),
    ),
    Kind("node", "Node.js with grpc-js and pg", ("node", NODE / "server.js")),
    Kind(
        "echo", "grpc.aio that answers without a database", (*_PYTHON, "benchmarks.peers.echo"), workloads=("GetUser",)
    ),
)


@dataclass(frozen=True)
class Server:
    """A running server."""

    kind: Kind
    port: int
    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        """Return the user and system time of its processes."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Return the resident memory of its first process."""
        return resident_bytes(self.pid)

    def truncate_log(self) -> None:
        """Truncate its log, so that the disk does not fill up."""
        os.truncate(self.log, 0)


@contextmanager
def running(kind: Kind, database_url: str, folder: Path) -> Iterator[Server]:
    """Run a server, with its log in `folder`, until the block ends; it accepts connections when the block begins.

    Raises:
        click.ClickException: the server does not start, exits by itself, or does not exit on SIGTERM.

    """
    port, log = _free_port(), folder / f"{kind.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - one of our own commands
            kind.command,
            cwd=ROOT,
            env=_environment(database_url, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C must reach only the benchmark, which then stops the server.
            start_new_session=True,
        )
    try:
        _wait_until_it_accepts(kind, process, port, log)
        yield Server(kind, port, process.pid, log)
        if process.poll() is not None:
            raise click.ClickException(f"{kind.name} exited during the benchmark: {_end_of(log)}")
    finally:
        _stop(kind, process)


def _environment(database_url: str, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMERCE_")}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")]),
        "DATABASE_URL": database_url,
        "PORT": str(port),
        "NODE_ENV": "production",
        "COMMERCE_PORT": str(port),
        # As in production.
        "COMMERCE_LOG_FORMAT": "json",
        # Unlike in production: the load program does not reconnect after a GOAWAY.
        "COMMERCE_MAX_CONNECTION_AGE": "0",
        # gRPC counts a call until it is cleaned up, and refuses calls beyond this limit. Its own clients retry refused
        # calls; the load program does not.
        "COMMERCE_MAX_CONCURRENT_STREAMS": "1000",
        "COMMERCE_SHUTDOWN_GRACE": "1",
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_accepts(kind: Kind, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise click.ClickException(f"{kind.name} did not start within {_START_SECONDS} seconds: {_end_of(log)}")


def _stop(kind: Kind, process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise click.ClickException(f"{kind.name} did not exit within {_STOP_SECONDS} seconds of SIGTERM") from None


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return " | ".join(line.strip() for line in lines if line.strip())[-1000:]
