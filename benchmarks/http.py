"""Measure what calls over HTTP cost beside calls over gRPC: `python -m benchmarks.http`.

One server on an embedded PostgreSQL answers GetUser on both of its ports. Each round measures every protocol for a
second: one caller (latency), and 32 callers on connections of their own (CPU of the server per call). The HTTP callers
write prepared requests to sockets and read the responses, so that no client library is measured. A second server runs
without the HTTP port, to see whether the port costs anything where it is not used.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from benchmarks.cpu import cpu_seconds
from benchmarks.servers import ROOT
from service.cli.migrate import migrate_schema
from service.config import DatabaseSettings, load
from service.devtools.embedded_postgres import embedded_postgres

_PATH = "/commerce.users.v1.UserService/GetUser"
_CALLERS = 32
_SECONDS = 1.0
_PATIENCE_SECONDS = 60
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]

# Makes one call.
Call = Callable[[], Awaitable[None]]


@contextmanager
def server(database_url: str, log: Path, **settings: str) -> Iterator[tuple[int, dict[str, int]]]:
    """Run a server until the block ends; yields its process id and its ports."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMERCE_")}
    variables = {f"COMMERCE_{name}".upper(): value for name, value in settings.items()}
    variables |= {"COMMERCE_PORT": "0", "COMMERCE_MAX_CONNECTION_AGE": "0", "COMMERCE_LOG_FORMAT": "json"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            cwd=ROOT,
            env={**inherited, **variables, "DATABASE_URL": database_url},
            stderr=output,
        )
    try:
        yield process.pid, _ports(process, log)
    finally:
        process.terminate()
        process.wait()


def _ports(process: subprocess.Popen[bytes], log: Path) -> dict[str, int]:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    # A server that has ended will not serve.
    while process.poll() is None and time.monotonic() < give_up:
        lines = [json.loads(line) for line in log.read_text().split("\n")[:-1]]
        if found := [line for line in lines if line["event"] == "serving"]:
            return {"grpc": found[0]["port"], "http": found[0]["http_port"] or 0}
        time.sleep(0.1)
    raise click.ClickException(f"the server does not serve: {log.read_text()[-1000:]}")


async def grpc_call(port: int, request: pb.GetUserRequest) -> Call:
    """Return a call over gRPC, on a connection of its own."""
    stub = UserServiceStub(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OWN_CONNECTION))

    async def call() -> None:
        await stub.GetUser(request)

    return call


async def http_call(port: int, body: bytes, *headers: str) -> Call:
    """Return a call over HTTP, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"POST {_PATH} HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *headers, "", ""]
    request = "\r\n".join(lines).encode() + body

    async def call() -> None:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise click.ClickException(f"a call failed: {head.decode()}")
        if match := _LENGTH.search(head):
            await reader.readexactly(int(match[1]))
            return
        while length := int(await reader.readline(), 16):
            await reader.readexactly(length + 2)
        await reader.readexactly(2)

    return call


async def repeat(call: Call) -> list[float]:
    """Call again and again for a while, and return the seconds that each call took."""
    taken, end = [], time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < end:
        await call()
        taken.append(time.perf_counter() - started)
    return taken


async def measure(rounds: int, folder: Path, database_url: str) -> None:
    """Measure every protocol, and print the medians of the rounds."""
    with ExitStack() as stack:
        without_pid, without = stack.enter_context(server(database_url, folder / "without"))
        pid, ports = stack.enter_context(server(database_url, folder / "with", http_port="0"))
        user = User(email="ada@example.com", username="ada", full_name="Ada Lovelace")
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}", options=_OWN_CONNECTION)
        create = pb.CreateUserRequest(user=user, password="correct horse")  # noqa: S106 - of the benchmark's user
        request = pb.GetUserRequest(id=(await UserServiceStub(channel).CreateUser(create)).user.id)
        as_json, as_bytes = json.dumps({"id": request.id}).encode(), request.SerializeToString()
        connect = "connect-protocol-version: 1"
        subjects: dict[str, tuple[int, Callable[[], Awaitable[Call]]]] = {
            "gRPC, without the port": (without_pid, lambda: grpc_call(without["grpc"], request)),
            "gRPC": (pid, lambda: grpc_call(ports["grpc"], request)),
            "JSON": (pid, lambda: http_call(ports["http"], as_json, "content-type: application/json")),
            "Connect, JSON": (
                pid,
                lambda: http_call(ports["http"], as_json, "content-type: application/json", connect),
            ),
            "Connect, binary": (
                pid,
                lambda: http_call(ports["http"], as_bytes, "content-type: application/proto", connect),
            ),
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in subjects}
        calls = {name: [await make() for _ in range(_CALLERS)] for name, (_, make) in subjects.items()}
        for number in range(rounds + 1):
            for name, (server_pid, _) in subjects.items():
                alone = await repeat(calls[name][0])
                before = cpu_seconds(server_pid)
                together = await asyncio.gather(*map(repeat, calls[name]))
                count = sum(map(len, together))
                cpu = (cpu_seconds(server_pid) - before) / count
                # The first round warms up.
                if number:
                    found[name].append((statistics.median(alone), cpu, count / _SECONDS))
        click.echo("| | p50 of one caller | server CPU per call, 32 callers | calls/s |\n|---|--:|--:|--:|")
        for name, values in found.items():
            latency, cpu, rate = map(statistics.median, zip(*values, strict=True))
            click.echo(f"| {name} | {latency * 1e3:.2f} ms | {cpu * 1e6:.0f} µs | {rate:.0f} |")


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Measured rounds of each protocol.")
def main(*, rounds: int) -> None:
    """Measure the cost of calls over HTTP."""
    with tempfile.TemporaryDirectory() as name, embedded_postgres(Path(name) / "postgres") as database_url:
        asyncio.run(migrate_schema(load(DatabaseSettings, DATABASE_URL=database_url), "head"))
        asyncio.run(measure(rounds, Path(name), database_url))


if __name__ == "__main__":
    main(sys.argv[1:])
