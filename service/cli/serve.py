"""The `commerce serve` command."""

import asyncio
import json
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
from service.rpc.identity.permissions import permissions
from service.server import Server, new_event_loop

# How often a process looks whether the process that runs its database has stopped.
_OWNER_CHECK_SECONDS = 0.1

log = structlog.get_logger()

_DEVELOPMENT_WELCOME = """
The user and order service listens on {address} with a database in {data_dir}.
In another terminal, with grpcurl:

  grpcurl -plaintext{header} {address} list
  grpcurl -plaintext{header} \\
      -d '{{"user": {{"email": "bob@example.com", "username": "bob"}}, "password": "correct horse"}}' \\
      {address} commerce.users.v1.UserService/CreateUser
  grpcurl -plaintext{header} -d '{{"username": "bob"}}' {address} commerce.users.v1.UserService/GetUser

or, for each call, with buf:

  .venv/bin/buf curl --protocol grpc{header} -d '{{"username": "bob"}}' \\
      http://{address}/commerce.users.v1.UserService/GetUser

{callers}

docs/tour.md continues from here. Ctrl-C stops the service; the data stays. Other programs connect to the database with
DATABASE_URL='{database_url}'
"""

_HEADER = ' -H "x-api-key: $KEY"'
_ANONYMOUS = """\
Every caller is anonymous and may do everything, because only programs of this machine reach the address. To call with
a key instead, stop the service, and run

  KEY=$(.venv/bin/commerce keys create me --file {keys})
  COMMERCE_API_KEYS_FILE={keys} make run"""
_KNOWN = """\
Callers need a key, which this command makes: KEY=$(.venv/bin/commerce keys create me --file {keys})"""
# What every known caller may do in development, until the file is changed.
_POLICY = """\
# What the callers of `commerce serve --dev` may do (docs/security.md); read again when it changes.

[roles]
developer = {permissions}

[identities]
"*" = ["developer"]
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
            settings = _with_policy(development.model_copy(update={"database_url": SecretStr(database_url)}))
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
        click.echo(_welcome(settings, data_dir, address, url))
        if owner := other_owner(data_dir):
            log.info("using the database of another process, and stopping when it does", pid=owner.pid)
            watching = asyncio.create_task(_stop_with(owner))
    exit_deadline = await server.wait_until_signalled()
    if data_dir is not None:
        # PostgreSQL stops after the server, and has a time limit of its own.
        exit_deadline.cancel()
    if watching:
        watching.cancel()


def _with_policy(settings: DevelopmentServerSettings) -> DevelopmentServerSettings:
    """Return the settings with a policy that allows everything, if callers are known and none is configured."""
    if settings.policy_file or not settings.has_identities:
        return settings
    path = settings.data_dir / "policy.toml"
    if not path.exists():
        path.write_text(_POLICY.format(permissions=json.dumps([*permissions()])))
    return settings.model_copy(update={"policy_file": path})


def _welcome(settings: ServerSettings, data_dir: Path, address: str, database_url: str) -> str:
    keys = settings.api_keys_file or data_dir / "keys.toml"
    callers = _KNOWN if settings.api_keys_file else _ANONYMOUS
    if settings.has_identities and not settings.api_keys_file:
        callers = "Callers need a credential: docs/security.md."
    return _DEVELOPMENT_WELCOME.format(
        address=address,
        data_dir=data_dir,
        database_url=database_url,
        header=_HEADER if settings.api_keys_file else "",
        callers=callers.format(keys=keys),
    )


async def _stop_with(owner: OtherOwner) -> None:
    """Send this process SIGTERM when the process that runs the database stops."""
    while owner.is_running():  # noqa: ASYNC110 - a file lock wakes no event loop
        await asyncio.sleep(_OWNER_CHECK_SECONDS)
    log.warning("stopping, because the process that runs the database has stopped", pid=owner.pid)
    signal.raise_signal(signal.SIGTERM)
