"""Measure the memory of a server while it imports and exports many users and orders.

    DATABASE_URL=postgresql://… python benchmarks/memory.py --rows 1000000

The database of DATABASE_URL must be migrated; the imported rows stay in it. `--rows 0` imports nothing, and exports
the existing rows. The server is a separate process, whose resident set is read from /proc every 0.2 s. The peak must
not grow with the number of rows.
"""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import click
import grpc
from commerce.orders.v1.order_service_pb2 import ExportOrdersRequest
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from commerce.users.v1.user_pb2 import UserProfile
from commerce.users.v1.user_service_pb2 import ExportUsersRequest, ImportUsersRequest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Users to import.")
def main(*, rows: int) -> None:
    """Import ROWS users, then export all users and all orders."""
    with _server() as (pid, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        users, orders = UserServiceStub(channel), OrderServiceStub(channel)
        # The first import allocates memory that stays allocated.
        users.ImportUsers(_rows(1000))
        click.echo(f"{'':>14}{'rows':>10}{'seconds':>9}{'before MB':>11}{'peak MB':>9}")
        with _measured(pid, "import users") as count:
            count.append(users.ImportUsers(_rows(rows)).created_count)
        with _measured(pid, "export users") as count:
            count.append(sum(len(batch.users) for batch in users.ExportUsers(ExportUsersRequest())))
        with _measured(pid, "export orders") as count:
            count.append(sum(len(batch.orders) for batch in orders.ExportOrders(ExportOrdersRequest())))


def _rows(count: int) -> Iterator[ImportUsersRequest]:
    yield ImportUsersRequest(config=UserImportConfig())
    run = uuid4().hex[:12]
    for number in range(count):
        name = f"{run}.{number}"
        profile = UserProfile(bio="Likes engines.") if number % 10 == 0 else None
        row = UserImportRow(email=f"{name}@example.com", username=name, full_name="Ada Lovelace", profile=profile)
        yield ImportUsersRequest(row=row)


@contextmanager
def _server() -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own command
        try:
            lines = iter(server.stderr or ())
            port = next(int(found[1]) for line in lines if (found := re.search(r'"port": (\d+)', line)))
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            yield server.pid, port
        finally:
            server.kill()


@contextmanager
def _measured(pid: int, what: str) -> Iterator[list[int]]:
    before = _resident(pid)
    peaks, done = [before], threading.Event()

    def sample() -> None:
        while not done.wait(0.2):
            peaks.append(_resident(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    started, count = time.monotonic(), list[int]()
    try:
        yield count
    finally:
        done.set()
        sampler.join()
    seconds = time.monotonic() - started
    click.echo(f"{what:>14}{sum(count):>10}{seconds:>9.0f}{before / 1e6:>11.0f}{max(peaks) / 1e6:>9.0f}")


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
