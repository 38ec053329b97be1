"""Measure how evenly Linux spreads connections over workers: `python -m benchmarks.spread`.

Channels with one connection each call `commerce serve --workers` on an embedded PostgreSQL, one call every 0.2 s. The
log tells which worker answered. The connections are counted when all are open, again after each maximum age, and after
all workers have been rolled (SIGHUP).
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from benchmarks.servers import ROOT
from service.cli.migrate import migrate_schema
from service.config import DatabaseSettings, load
from service.devtools.embedded_postgres import embedded_postgres

_PAUSE_SECONDS = 0.2
# Two calls of each channel.
_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 300


class Workers:
    """A running `commerce serve --workers`."""

    def __init__(self, database_url: str, count: int, age: float, log: Path) -> None:
        self._count = count
        self._log = log
        settings = {"COMMERCE_WORKERS": str(count), "COMMERCE_MAX_CONNECTION_AGE": str(age), "COMMERCE_PORT": "0"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMERCE_")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"],
                cwd=ROOT,
                env={
                    **inherited,
                    "DATABASE_URL": database_url,
                    **{name: str(value) for name, value in settings.items()},
                },
                stderr=output,
                start_new_session=True,
            )

    async def logged(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait until the log has an event so many times, and return the last line."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            lines = [line for line in self._lines() if line["event"] == event]
            if len(lines) >= times:
                return lines[-1]
            await asyncio.sleep(0.1)
        raise click.ClickException(f"the workers did not log {event!r}: {self._log.read_text()[-1000:]}")

    def roll(self) -> None:
        """Replace all workers."""
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop all workers."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    async def spread(self) -> Sequence[int]:
        """Return the numbers of channels whose last call each worker has answered, in descending order."""
        await asyncio.sleep(_LOOK_SECONDS)
        last = {line["x_request_id"]: line["worker"] for line in self._lines() if line["event"] == "call"}
        counts = Counter(last.values())
        return sorted((counts[number + 1] for number in range(self._count)), reverse=True)

    def _lines(self) -> Sequence[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().split("\n")[:-1]]


@click.command()
@click.option("--workers", default=4, show_default=True)
@click.option("--channels", default=64, show_default=True)
@click.option("--age", default=5.0, show_default=True, help="COMMERCE_MAX_CONNECTION_AGE")
@click.option("--rounds", default=5, show_default=True, help="How many maximum ages to wait for.")
def main(*, workers: int, channels: int, age: float, rounds: int) -> None:
    """Print how many connections each worker has."""
    with tempfile.TemporaryDirectory() as name, embedded_postgres(Path(name) / "postgres") as url:
        asyncio.run(migrate_schema(load(DatabaseSettings, DATABASE_URL=url), "head"))
        running = Workers(url, workers, age, Path(name) / "log")
        try:
            asyncio.run(_measure(running, channels, age, rounds))
        finally:
            running.stop()


async def _measure(workers: Workers, channels: int, age: float, rounds: int) -> None:
    port = (await workers.logged("serving with workers"))["port"]
    async with AsyncExitStack() as stack:
        calling = []
        for number in range(channels):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options))
            calling.append(asyncio.create_task(_call(channel, str(number))))
        click.echo(f"connections of each worker, {channels} in all, with a maximum age of {age:g} s")
        _print("all open", await workers.spread())
        for number in range(rounds):
            # With gRPC's jitter.
            await asyncio.sleep(1.1 * age)
            _print(f"after {number + 1} maximum ages", await workers.spread())
        workers.roll()
        started = time.monotonic()
        await workers.logged("rolled the workers")
        _print(f"after a roll of {time.monotonic() - started:.0f} s", await workers.spread())
        for task in calling:
            task.cancel()


async def _call(channel: grpc.aio.Channel, name: str) -> None:
    users = UserServiceStub(channel)
    while True:
        await users.ListUsers(pb.ListUsersRequest(), metadata=(("x-request-id", name),), wait_for_ready=True)
        await asyncio.sleep(_PAUSE_SECONDS)


def _print(when: str, counts: Sequence[int]) -> None:
    click.echo(f"{when:30} {' '.join(f'{count:3}' for count in counts)}")


if __name__ == "__main__":
    main()
