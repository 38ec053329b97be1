"""The `commerce serve` command."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import click
import structlog
from pydantic import SecretStr

from service.cli.migrate import migrate_schema
from service.cli.running import load_and_log, one_line_errors, run
from service.config import DevelopmentServerSettings, ServerSettings
from service.devtools.embedded_postgres import OtherOwner, embedded_postgres, other_owner
from service.rpc.call_context import x_request_id
from service.server import Server, new_event_loop

# How often a process looks whether the process that runs its database has stopped.
_OWNER_CHECK_SECONDS = 0.1

log = structlog.get_logger()

_DEVELOPMENT_WELCOME = """
The user and order service listens on {address} with a database in {data_dir}.
In another terminal, with grpcurl:

  grpcurl -plaintext {address} list
  grpcurl -plaintext -d '{{"user": {{"email": "bob@example.com", "username": "bob"}}, "password": "correct horse"}}' \\
      {address} commerce.users.v1.UserService/CreateUser
  grpcurl -plaintext -d '{{"username": "bob"}}' {address} commerce.users.v1.UserService/GetUser

or, for each call, with buf:

  .venv/bin/buf curl --protocol grpc -d '{{"username": "bob"}}' http://{address}/commerce.users.v1.UserService/GetUser

docs/tour.md continues from here. Ctrl-C stops the service; the data stays. Other programs connect to the database with
DATABASE_URL='{database_url}'
"""


def serve(*, dev: bool, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    with one_line_errors():
        if not dev:
            settings = load_and_log(ServerSettings, call_id=x_request_id, host=host, port=port)
            run(_serve(settings), partial(new_event_loop, settings))
            return
        development = load_and_log(
            DevelopmentServerSettings,
            call_id=x_request_id,
            DATABASE_URL="postgresql:///",  # replaced below
            host=host,
            port=port,
            # There is no other server to move clients to, so Ctrl-C need not wait for their connections to age.
            max_connection_age=0,
            shutdown_grace=1,
        )
        with embedded_postgres(development.data_dir, bin_dir=development.postgres_bin) as database_url:
            settings = development.model_copy(update={"database_url": SecretStr(database_url)})
            run(migrate_schema(settings, "head"))
            run(_serve(settings, development.data_dir), partial(new_event_loop, settings))


async def _serve(settings: ServerSettings, data_dir: Path | None = None) -> None:
    watching: asyncio.Task[None] | None = None
    server = Server(settings)
    await server.start()
    if data_dir is not None:
        address = f"{settings.host}:{server.port}"
        # Only SQLAlchemy accepts the name of a driver in the URL.
        url = settings.database_url.get_secret_value().replace("+asyncpg", "")
        click.echo(_DEVELOPMENT_WELCOME.format(address=address, data_dir=data_dir, database_url=url))
        if owner := other_owner(data_dir):
            log.info("using the database of another process, and stopping when it does", pid=owner.pid)
            watching = asyncio.create_task(_stop_with(owner))
    exit_deadline = await server.wait_until_signalled()
    if data_dir is not None:
        # PostgreSQL stops after the server, and has a time limit of its own.
        exit_deadline.cancel()
    if watching:
        watching.cancel()


async def _stop_with(owner: OtherOwner) -> None:
    """Send this process SIGTERM when the process that runs the database stops."""
    while owner.is_running():  # noqa: ASYNC110 - a file lock wakes no event loop
        await asyncio.sleep(_OWNER_CHECK_SECONDS)
    log.warning("stopping, because the process that runs the database has stopped", pid=owner.pid)
    signal.raise_signal(signal.SIGTERM)
