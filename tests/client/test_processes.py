"""What a client does to its process: imports, forks, event loops, and channels that are left open."""

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from service.server import Server

# The prelude of each script: what it does in a child process, and whether that ended.
PRELUDE = """
import asyncio, os, signal, sys, threading
from commerce.client import AsyncClient, Client
from commerce.client.errors import UserNotFound

address = sys.argv[1]

def get(client):
    try:
        client.users.get(username="nobody-here", timeout=10)
    except UserNotFound:
        return "answered"

async def get_async(client):
    try:
        await client.users.get(username="nobody-here", timeout=10)
    except UserNotFound:
        return "answered"

def in_a_child(work):
    child = os.fork()
    if not child:
        # If it hangs, a signal ends it.
        signal.alarm(20)
        try:
            print("child", work(), flush=True)
        except Exception as error:
            print("child", type(error).__name__, flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
"""


async def run(script: str, port: int, **variables: str) -> list[str]:
    """Run a script beside the server of this process; returns the lines that it printed."""
    # The service's own setting for gRPC, which the tests inherit.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    # Since 3.12, Python warns of any fork of a process with threads, which gRPC has.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *warnings, "-c", PRELUDE + textwrap.dedent(script), f"127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**environment, **variables}
    )
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, stderr.decode()
    return stdout.decode().splitlines()


async def test_a_client_goes_on_in_a_forked_process(server: "Server") -> None:
    script = """
    client = Client(address)
    print(get(client))
    in_a_child(lambda: get(client))
    in_a_child(lambda: get(client.with_options(timeout=5)))
    print(get(client))
    client.close()
    in_a_child(lambda: get(client))
    """
    assert await run(script, server.port) == [
        "answered",
        "child answered",
        "child answered",
        "answered",
        "child ClientClosed",
    ]


async def test_clients_of_both_kinds_that_have_not_called_can_be_forked(server: "Server") -> None:
    script = """
    client, async_client = Client(address), AsyncClient(address)
    in_a_child(lambda: get(client))
    in_a_child(lambda: asyncio.run(get_async(async_client)))
    print(get(client))
    """
    assert await run(script, server.port) == ["child answered", "child answered", "answered"]


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("client = AsyncClient(address)\nasyncio.run(get_async(client))\nin_a_child(lambda: get(Client(address)))", {}),
        (
            "client = Client(address)\nget(client)\nin_a_child(lambda: get(client))",
            {"GRPC_ENABLE_FORK_SUPPORT": "0"},
        ),
    ],
)
async def test_a_child_in_which_grpc_would_hang_gets_an_error(
    server: "Server", script: str, variables: dict[str, Any]
) -> None:
    assert await run(script, server.port, **variables) == ["child ForkUnsupported"]


async def test_one_client_serves_several_event_loops(server: "Server") -> None:
    """One after the other, and in several threads, without warnings about what is left open."""
    script = """
    client = AsyncClient(address)
    for _ in range(3):
        print(asyncio.run(get_async(client)))

    results = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(get_async(client)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(results)

    async def with_a_block():
        async with client:
            return await get_async(client)

    print(asyncio.run(with_a_block()))
    # The channels of event loops that have ended are gone.
    print(len(client._calls.connection._by_loop) <= 4)
    """
    assert await run(script, server.port) == [
        *["answered"] * 3,
        "['answered', 'answered', 'answered']",
        "answered",
        "True",
    ]


async def test_a_client_that_is_never_closed_ends_with_its_process(server: "Server") -> None:
    assert await run("client = Client(address)\nprint(get(client))", server.port) == ["answered"]


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a new process."""
    script = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(ran.stdout.split())


def test_importing_the_client_loads_no_messages_and_nothing_of_the_service() -> None:
    """Messages take as long to load as all the rest: a command-line program that prints its help needs none."""
    loaded = loaded_by("from commerce.client import AsyncClient, Client")
    assert "grpc" in loaded
    assert [name for name in loaded if name.endswith("_pb2")] == []
    assert not {name.partition(".")[0] for name in loaded} & {"service", "google", "pydantic", "opentelemetry"}
