"""Measure what the Python clients add to a call over raw stubs: `python -m benchmarks.client`, or `make bench`.

The server, a process of its own, answers each call with the same user, so that the time of a call is mostly gRPC's own.
Stubs and client take turns, a few hundred calls each. What is compared is the CPU time of this process, of all its
threads: unlike the time on the clock, it does not depend on how soon the server answers. The client's calls are those
of a program: with keyword arguments, retries on, and an `x-request-id`. The stub's have a message and a time-out, and
the same channel options.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import click
import grpc
from commerce.client import AsyncClient, Client
from commerce.client.channel import channel_config
from commerce.users.v1.user_pb2 import User, UserProfile
from commerce.users.v1.user_service_pb2 import GetUserRequest, GetUserResponse
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from benchmarks.results import ClientCost, Spread

CALLS = 300
# What the clients may add, in microseconds.
LIMITS = {"Client": 60.0, "AsyncClient": 80.0}
USER_ID = "0197f3a2-0000-7000-8000-000000000001"
USER = User(id=USER_ID, email="ada@example.com", username="ada", full_name="Ada Lovelace", profile=UserProfile(bio="x"))


async def serve() -> None:
    """Serve until the parent ends, and print the port."""

    async def get_user(_request: GetUserRequest, _context: object) -> GetUserResponse:
        return GetUserResponse(user=USER)

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        get_user, GetUserRequest.FromString, GetUserResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("commerce.users.v1.UserService", {"GetUser": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # noqa: T201 - for the parent
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def calls_of_sync(port: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a call of a raw stub and one of a `Client`."""
    config = channel_config(f"127.0.0.1:{port}", None, health_check=False)
    get = UserServiceStub(grpc.insecure_channel(config.target, config.options)).GetUser
    client = Client(f"127.0.0.1:{port}", health_check=False)
    return lambda: get(GetUserRequest(id=USER_ID), timeout=10), lambda: client.users.get(USER_ID)


def calls_of_asyncio(port: int) -> tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]:
    """Return a call of a raw asyncio stub and one of an `AsyncClient`."""
    config = channel_config(f"127.0.0.1:{port}", None, health_check=False)
    get = UserServiceStub(grpc.aio.insecure_channel(config.target, config.options)).GetUser
    client = AsyncClient(f"127.0.0.1:{port}", health_check=False)
    return lambda: get(GetUserRequest(id=USER_ID), timeout=10), lambda: client.users.get(USER_ID)


def measure_sync(port: int, rounds: int) -> list[tuple[float, float]]:
    """Return the CPU time of a call in each round, in microseconds: of the stub, and of the client."""
    calls = calls_of_sync(port)

    def block(call: Callable[[], object]) -> float:
        began = time.process_time()
        for _ in range(CALLS):
            call()
        return (time.process_time() - began) / CALLS * 1e6

    return [(block(calls[0]), block(calls[1])) for _ in range(rounds)]


async def measure_asyncio(port: int, rounds: int) -> list[tuple[float, float]]:
    """Return the same of the asyncio stub and client."""
    calls = calls_of_asyncio(port)

    async def block(call: Callable[[], Awaitable[object]]) -> float:
        began = time.process_time()
        for _ in range(CALLS):
            await call()
        return (time.process_time() - began) / CALLS * 1e6

    return [(await block(calls[0]), await block(calls[1])) for _ in range(rounds)]


def cost(name: str, measured: Sequence[tuple[float, float]]) -> ClientCost:
    """Return the cost of a client, and print it."""
    # The first round connects, and loads what is loaded lazily.
    rounds = measured[1:]
    stub, client = (Spread.of(column) for column in zip(*rounds, strict=True))
    added = Spread.of(with_client - with_stub for with_stub, with_client in rounds)
    click.echo(
        f"{name:12} stub {stub.median:6.1f} µs  client {client.median:6.1f} µs"
        f"  added {added.median:5.1f} µs  limit {LIMITS[name]:g} µs"
    )
    return ClientCost(client=name, stub_us=stub, client_us=client, added_us=added, most_us=LIMITS[name])


def measure_clients(rounds: int) -> list[ClientCost]:
    """Measure both clients in this many rounds, at least two, on a server of their own."""
    command = [sys.executable, "-m", "benchmarks.client", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - this module itself
        assert server.stdout
        port = int(server.stdout.readline())
        measured = [
            cost("Client", measure_sync(port, rounds)),
            cost("AsyncClient", asyncio.run(measure_asyncio(port, rounds))),
        ]
        # Ends its standard input, and so the server.
        server.communicate()
    return measured


@click.command(help=__doc__)
@click.option("--rounds", default=15, show_default=True, help="How many times stub and client take turns.")
@click.option("--serve", "serves", is_flag=True, hidden=True)
def main(*, rounds: int, serves: bool) -> None:
    """Measure, and end with status 1 if a client adds more than its limit."""
    if serves:
        asyncio.run(serve())
        return
    measured = measure_clients(rounds)
    sys.exit(0 if all(one.added_us.median <= one.most_us for one in measured) else 1)


if __name__ == "__main__":
    main()
