"""What `commerce serve --dev` adds: how to call the service, and the end of a database that another process runs."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import structlog

from service.config import ServerSettings
from service.devtools.embedded_postgres import OtherOwner, other_owner

# How often a process looks whether the process that runs its database has stopped.
_OWNER_CHECK_SECONDS = 0.1

log = structlog.get_logger()

_WELCOME = """
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


def welcome(settings: ServerSettings, port: int, data_dir: Path) -> None:
    """Print how to call the service."""
    # Only SQLAlchemy accepts the name of a driver in the URL.
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    click.echo(_WELCOME.format(address=f"{settings.host}:{port}", data_dir=data_dir, database_url=url))


@asynccontextmanager
async def stopping_with_owner(data_dir: Path) -> AsyncIterator[None]:
    """During the block, send this process SIGTERM when another process that runs the database stops."""
    watching: asyncio.Task[None] | None = None
    if owner := other_owner(data_dir):
        log.info("using the database of another process, and stopping when it does", pid=owner.pid)
        watching = asyncio.create_task(_stop_with(owner))
    try:
        yield
    finally:
        if watching:
            watching.cancel()


async def _stop_with(owner: OtherOwner) -> None:
    while owner.is_running():  # noqa: ASYNC110 - a file lock wakes no event loop
        await asyncio.sleep(_OWNER_CHECK_SECONDS)
    log.warning("stopping, because the process that runs the database has stopped", pid=owner.pid)
    signal.raise_signal(signal.SIGTERM)
