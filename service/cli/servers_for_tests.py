"""Servers for the tests of callers (`service.cli.serve_tests`), each with a database of its own."""

import asyncio
import json
import sys
from itertools import count
from typing import Any

from pydantic import SecretStr

from service.cli.databases_for_tests import DatabasesForTests, migrate_template
from service.cli.running import run
from service.config import LogSettings, ServerSettings, SettingsError, load
from service.observability.logs import configure_logging
from service.rpc.call_context import x_request_id
from service.runtime.errors import OperatorError
from service.runtime.stop_signals import StopSignals
from service.server import Server, new_event_loop

# What differs from a server in production unless the environment says otherwise: the process has many servers, one
# after the other, and passwords need not be safe.
_DEFAULTS: dict[str, object] = {
    "argon2_time_cost": 1,
    "argon2_memory_kib": 8,
    "db_pool_min_size": 1,
    "db_pool_size": 5,
    "debug_socket": False,
    "frozen_garbage_collector": False,
    "pending_accepts": 8,
    "scheduling": "normal",
}


def serve_requests(postgres_url: str) -> None:
    """Run servers as requests on standard input ask for, until it ends."""
    configure_logging(load(LogSettings), call_id=x_request_id)
    settings = _settings(postgres_url)
    run(migrate_template(postgres_url))
    run(_serve(postgres_url, settings), lambda: new_event_loop(settings))


def _settings(postgres_url: str) -> ServerSettings:
    """Return the settings that all servers share; each server gets its own database and port."""
    given = load(ServerSettings, DATABASE_URL=postgres_url).model_fields_set
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
    return load(ServerSettings, DATABASE_URL=postgres_url, **defaults)


async def _serve(postgres_url: str, settings: ServerSettings) -> None:
    signals = StopSignals(repeatable=False)
    async with DatabasesForTests.of(postgres_url) as databases:
        servers = ServersForTests(databases, settings)
        try:
            await signals.unless_stopped(_answer_requests(servers))
        finally:
            await servers.stop()


async def _answer_requests(servers: "ServersForTests") -> None:
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    answer: dict[str, Any] = {}
    while True:
        try:
            print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol
        except BrokenPipeError:
            return  # the tests were killed
        if not (request := await requests.readline()):
            return
        try:
            answer = await servers.answer(**json.loads(request))
        except (OperatorError, SettingsError) as error:
            answer = {"error": str(error)}


class _Served:
    """A server and its database."""

    def __init__(self, number: int, settings: ServerSettings) -> None:
        self.number = number
        self._settings = settings
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """The port, also while the server is stopped."""
        return self._settings.port

    async def start(self) -> None:
        """Run the server, on the port that it had before."""
        server = Server(self._settings)
        await server.start()
        self._server = server
        self._settings = self._settings.model_copy(update={"port": server.port})

    async def stop(self) -> None:
        """Cancel all calls, and stop the server if it runs."""
        server, self._server = self._server, None
        if server:
            await server.stop(grace=0)


class ServersForTests:
    """Servers, each on a database of its own.

    One more than was asked for is prepared while a test runs, so that the next test need not wait for it.
    """

    def __init__(self, databases: DatabasesForTests, settings: ServerSettings) -> None:
        self._databases = databases
        self._settings = settings
        self._numbers = count(1)
        self._served: dict[int, _Served] = {}
        self._prepared = asyncio.create_task(self._create())

    async def answer(self, do: str, id: int = 0) -> dict[str, Any]:  # noqa: A002 - a key of the protocol
        """Do what a request asks for; raises SettingsError and OperatorError if a server cannot run, or is closed."""
        if do != "open" and id not in self._served:
            raise OperatorError("the service is closed")
        match do:
            case "open":
                prepared, self._prepared = self._prepared, asyncio.create_task(self._create())
                served = await prepared
                self._served[served.number] = served
                return {"id": served.number, "port": served.port}
            case "stop":
                await self._served[id].stop()
            case "start":
                await self._served[id].start()
            case "close":
                served = self._served.pop(id)
                await served.stop()
                await self._databases.drop(_name(served.number))
        return {}

    async def stop(self) -> None:
        """Stop all servers. Their databases are deleted together with PostgreSQL's files."""
        # Not cancelled, because a server that has begun to start can be stopped only when it has started.
        (prepared,) = await asyncio.gather(self._prepared, return_exceptions=True)
        if isinstance(prepared, _Served):
            await prepared.stop()
        for served in self._served.values():
            await served.stop()

    async def _create(self) -> _Served:
        number = next(self._numbers)
        database_url = SecretStr(await self._databases.create(_name(number)))
        served = _Served(number, self._settings.model_copy(update={"database_url": database_url, "port": 0}))
        await served.start()
        return served


def _name(number: int) -> str:
    return f"test_{number}"
