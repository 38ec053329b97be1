"""The commands of docs/debugging.md print what the page shows, in the situations that it describes."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.order_pb2 import Order
from google.protobuf.field_mask_pb2 import FieldMask

from service.debugging import answers, states
from tests.support.clients import Clients, connect
from tests.support.databases import cloned
from tests.support.debug_sockets import ask_process
from tests.support.documents import blocks_of
from tests.support.locks import holding
from tests.support.paths import ROOT
from tests.support.processes import Process, run_command, serving
from tests.support.servers import running_server
from tests.support.shown import is_shown
from tests.support.waiting import eventually

PAGE = "docs/debugging.md"
DOCUMENT = (ROOT / PAGE).read_text()
STUCK = "THE EVENT LOOP IS STUCK"


@dataclass(frozen=True)
class Example:
    """A command, and what the page shows of its output."""

    command: str
    shown: str

    @property
    def arguments(self) -> list[str]:
        program, *arguments = shlex.split(self.command)
        assert program == "commerce"
        return arguments


EXAMPLES = [Example(block.text, block.shown) for block in blocks_of(PAGE) if block.shown is not None]


WHILE_IT_ANSWERS = [example for example in EXAMPLES if STUCK not in example.shown]


@dataclass(frozen=True)
class Situation:
    """The server that the page asks, and a client."""

    process: Process
    clients: Clients


@asynccontextmanager
async def busy(clients: Clients) -> AsyncIterator[None]:
    """Keep a server busy until the block ends."""
    ended = asyncio.Event()

    async def call() -> None:
        while not ended.is_set():
            await clients.users.ListUsers(users_pb.ListUsersRequest(page_size=50))

    async with asyncio.TaskGroup() as calling:
        for _ in range(4):
            calling.create_task(call())
        yield
        ended.set()


def alike(text: str) -> str:
    """Return an output without what differs each time: numbers, times, and the widths of columns."""
    numbers = re.sub(r"\d+(\.\d+)?( (ms|s|min|h)\b)?( \d+ (s|min)\b)?", "N", text)
    return re.sub(" {2,}", "  ", numbers)


def test_the_output_of_every_command_is_that_of_an_example() -> None:
    assert len(EXAMPLES) == DOCUMENT.count("```text\n") > 4
    assert [example.arguments[0] for example in EXAMPLES] == ["debug"] * len(EXAMPLES)


@pytest.fixture(scope="module")
async def situation(postgres_url: str, template_url: str) -> AsyncIterator[Situation]:
    """A server on which UpdateOrder hangs, because psql has changed the order and not committed."""
    async with (
        cloned(postgres_url, template_url) as url,
        serving(url) as process,
        connect(await process.port(), own_connection=True) as clients,
    ):
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        changed = Order(id=order.id, external_ref="cart-4711")
        request = orders_pb.UpdateOrderRequest(order=changed, update_mask=FieldMask(paths=["external_ref"]))
        of_psql = "SELECT set_config('application_name', 'psql', false) FROM orders WHERE id = $1 FOR UPDATE"
        async with holding(url, of_psql, order.id):
            call = clients.orders.UpdateOrder(request, metadata=(("x-request-id", "cart-4711"),))

            async def hangs() -> Any:
                answer = await ask_process(process.pid, {"ask": "pool"})
                # Long enough that it is known for how long.
                return [used for used in answer["connections"] if used["in_transaction"] and used["seconds"] > 0.1]

            await eventually(hangs)
            yield Situation(process, clients)
            call.cancel()
            await call.code()


@pytest.mark.parametrize("example", WHILE_IT_ANSWERS, ids=[example.command.strip() for example in WHILE_IT_ANSWERS])
async def test_a_command_prints_what_the_page_shows(situation: Situation, example: Example) -> None:
    async with AsyncExitStack() as load:
        if "profile" in example.arguments:
            await load.enter_async_context(busy(situation.clients))
        finished = await run_command(*example.arguments, "--pid", str(situation.process.pid))
    assert finished.status == 0, finished
    assert is_shown(alike(example.shown), alike(finished.stdout)), finished.stdout


async def test_a_stuck_server_is_shown_as_on_the_page(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_LOOP_SECONDS", 0.2)
    (example,) = [example for example in EXAMPLES if STUCK in example.shown]
    async with running_server(database_url):
        command = [sys.executable, "-m", "service", *example.arguments, "--pid", str(os.getpid())]
        # The event loop of the server, which is that of the test, waits here.
        finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: ASYNC221 - see above
    assert is_shown(alike(example.shown), alike(finished.stdout)), finished


def test_the_page_explains_all_states_of_calls() -> None:
    (table,) = re.findall(r"^\| State \|.*?\n\n", DOCUMENT, re.DOTALL | re.MULTILINE)
    explained = set(re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE))
    others = {"running", "waiting", "in statement", "waiting for a connection", "pausing before the next attempt"}
    assert explained == {*states._WAITS.values(), *states._CLIENT_WAITS.values(), *others}  # noqa: SLF001 - the words


def test_the_page_names_commands_that_exist() -> None:
    named = set(re.findall(r"commerce debug (\w+)", DOCUMENT))
    assert named == {"calls", "pool", "statements", "channels", "profile"}


async def test_the_help_of_each_command_is_found() -> None:
    finished = await asyncio.gather(*(run_command("debug", name, "--help") for name in ("calls", "profile")))
    assert all(each.status == 0 and "--json" in each.stdout for each in finished)
