"""The `commerce` command. What goes wrong is one line on standard error, and exit status 1."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from service.application.ports import StoreError
from service.config import DatabaseSettings, DevelopmentSettings, LogSettings, ServerSettings, SettingsError, load
from service.db import migrate as migrations
from service.db.embedded import EmbeddedPostgresError, embedded_postgres
from service.db.engine import create_engine
from service.db.gc import sweep_request_ids
from service.db.readiness import problem_with, words_for
from service.logs import configure_logging
from service.server import Server, StartError

T = TypeVar("T")

_EXPECTED = (SettingsError, StartError, migrations.MigrationError, EmbeddedPostgresError)
_DEVELOPMENT_WELCOME = """
The user and order service listens on {address} with a database in {data_dir}.
In another terminal, with grpcurl or with `.venv/bin/buf curl --protocol grpc --http2-prior-knowledge`:

  grpcurl -plaintext {address} list
  grpcurl -plaintext -d '{{"user": {{"email": "ada@example.com", "username": "ada"}}, "password": "correct horse"}}' \\
      {address} commerce.users.v1.UserService/CreateUser
  grpcurl -plaintext -d '{{"username": "ada"}}' {address} commerce.users.v1.UserService/GetUser

The README goes on from there. Ctrl-C stops; the data stays. For other programs:
DATABASE_URL='{database_url}'
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The user and order service: gRPC in front of PostgreSQL.

    Settings come from the environment; docs/settings.md lists them all. The one that is needed is DATABASE_URL.
    """


@main.command()
@click.option(
    "--dev", is_flag=True, help="Start an embedded PostgreSQL (data in COMMERCE_DATA_DIR), migrate it, and serve."
)
@click.option("--host", help="Address to listen on, instead of COMMERCE_HOST (127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on, instead of COMMERCE_PORT (50051); 0 takes a free one.")
def serve(*, dev: bool, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C; a second signal stops at once.

    The first signal drains: health says NOT_SERVING, callers are led away, and running calls end.
    """
    with _one_line_errors():
        configure_logging(load(LogSettings))
        if not dev:
            _run(_serve(load(ServerSettings, host=host, port=port)))
            return
        development = load(DevelopmentSettings)
        with embedded_postgres(development.data_dir, bin_dir=development.postgres_bin) as database_url:
            # Nobody is to be led away from here, so Ctrl-C need not wait.
            settings = load(
                ServerSettings, DATABASE_URL=database_url, host=host, port=port, max_connection_age=0, shutdown_grace=1
            )
            _run(_migrate(settings, "head"))
            _run(_serve(settings, development.data_dir))


async def _serve(settings: ServerSettings, data_dir: Path | None = None) -> None:
    server = Server(settings)
    await server.start()
    if data_dir is not None:
        address = f"{settings.host}:{server.port}"
        # For other programs, which know no driver of Python's.
        url = settings.database_url.get_secret_value().replace("+asyncpg", "")
        click.echo(_DEVELOPMENT_WELCOME.format(address=address, data_dir=data_dir, database_url=url))
    await server.wait_until_signalled()


@main.command()
@click.argument("revision", default="head")
@click.option("--check", is_flag=True, help="Change nothing; fail if this build cannot serve the schema as it is.")
def migrate(*, revision: str, check: bool) -> None:
    """Bring the schema up to REVISION, by default the newest.

    Safe to run from many places at once: one migrates, the others wait for it.
    """
    with _one_line_errors():
        settings = load(DatabaseSettings)
        if check:
            _run(_check(settings))
            click.echo("the schema is what this build needs")
        else:
            done = _run(_migrate(settings, revision))
            click.echo("migrated" if done else "there was nothing to migrate")


async def _migrate(settings: DatabaseSettings, revision: str) -> bool:
    engine = create_engine(settings, pool_size=1)
    try:
        return await migrations.upgrade(engine, revision)
    finally:
        await engine.dispose()


async def _check(settings: DatabaseSettings) -> None:
    engine = create_engine(settings, pool_size=1)
    try:
        if problem := await problem_with(engine):
            raise StartError(problem)
    finally:
        await engine.dispose()


@main.command()
def gc() -> None:
    """Delete what is kept for a time only: answers to request ids, after 24 hours. Run it every hour or so."""
    with _one_line_errors():
        settings = load(DatabaseSettings)
        _run(_check(settings))
        swept = _run(_gc(settings))
        click.echo(f"swept {swept} expired request ids")


async def _gc(settings: DatabaseSettings) -> int:
    engine = create_engine(settings, pool_size=1)
    try:
        return await sweep_request_ids(engine)
    finally:
        await engine.dispose()


@main.command()
def version() -> None:
    """Print the version of the service, and of the schema that it needs."""
    click.echo(
        f"commerce {version_of('commerce-service')}, schema {migrations.head()}, Python {sys.version.split()[0]}"
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except StoreError as error:
        raise click.ClickException(words_for(error)) from error
