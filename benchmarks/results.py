"""The results of a benchmark, as stored in JSON, with the machine and versions that it ran on."""

import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, Field

_PACKAGES = ("grpcio", "protobuf", "SQLAlchemy", "asyncpg", "uvloop", "fastapi", "uvicorn")


class Spread(BaseModel):
    """The distribution of one figure over the rounds."""

    median: float
    min: float
    max: float
    # In the order of the rounds; not stored in JSON.
    values: tuple[float, ...] = Field(default=(), exclude=True)

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return the spread of one or more values."""
        rounded = tuple(round(value, 4) for value in values)
        return cls(median=round(statistics.median(rounded), 4), min=min(rounded), max=max(rounded), values=rounded)


class Measurement(BaseModel):
    """The figures of one server under one load."""

    workload: str
    server: str
    in_flight: int
    # With HTTP/1.1, there is one connection per call in flight instead.
    connections: int
    # Calls per second; None if each reply started the next call.
    rate: float | None = None
    rounds: int
    # Calls in each round.
    calls: int
    # User and system time of the server's processes, per call.
    cpu_us: Spread
    # The same for PostgreSQL; None if its processes are not visible.
    postgres_cpu_us: Spread | None
    rpc_per_second: Spread
    p50_ms: Spread
    p99_ms: Spread
    # Measured after the last round.
    resident_mb: float


class ClientCost(BaseModel):
    """CPU time of a call in the process of the caller: with a raw stub, with a Python client, and the difference."""

    client: str
    stub_us: Spread
    client_us: Spread
    added_us: Spread
    # What the client may add.
    most_us: float


class Machine(BaseModel):
    """The machine that the servers, PostgreSQL and the load program shared."""

    processor: str
    cores: int
    memory_gb: float
    kernel: str

    @classmethod
    def this(cls) -> "Machine":
        """Return this machine."""
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        return cls(
            processor=found[1] if found else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=round(memory, 1),
            kernel=f"{platform.system()} {platform.release()}",
        )


class Results(BaseModel):
    """All results of a benchmark."""

    finished: datetime
    command: str
    machine: Machine
    versions: dict[str, str]
    users: int
    orders: int
    # Descriptions of the servers by name, and the reasons why servers were not measured by name.
    servers: dict[str, str]
    skipped: dict[str, str]
    measurements: list[Measurement]
    clients: list[ClientCost] = []

    def find(
        self, workload: str, server: str, in_flight: int, connections: int, rate: float | None = None
    ) -> Measurement | None:
        """Return a measurement, or None if it was not made."""
        wanted = (workload, server, in_flight, connections, rate)
        for found in self.measurements:
            if wanted == (found.workload, found.server, found.in_flight, found.connections, found.rate):
                return found
        return None


def now() -> datetime:
    """Return the current time in UTC, without fractions of a second."""
    return datetime.now(UTC).replace(microsecond=0)


def versions(postgres: str, node_folder: Path) -> dict[str, str]:
    """Return the versions of Python, PostgreSQL, and the relevant packages that are installed."""
    found = {"Python": platform.python_version(), "PostgreSQL": postgres}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if (node := shutil.which("node")) and (node_folder / "node_modules").is_dir():
        command = [node, "--version"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
        found["Node.js"] = printed.stdout.strip().removeprefix("v")
        for package in ("@grpc/grpc-js", "pg"):
            text = (node_folder / "node_modules" / package / "package.json").read_text()
            parts = re.search(r'"version": "(.+?)"', text)
            found[package] = parts[1] if parts else "unknown"
    return found
