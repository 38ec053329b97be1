"""The `commerce` command. What goes wrong is one line on standard error, and exit status 1."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import uvloop

from service.application.maintenance import backfill_encoded_users, expire_holds, purge_deleted_users
from service.application.ports.errors import StoreError
from service.application.ports.unit_of_work import UnitOfWork
from service.cli.data import export_orders, import_users
from service.config import (
    DatabaseSettings,
    DevelopmentSettings,
    GcSettings,
    LogSettings,
    RelaySettings,
    ServerSettings,
    SettingsError,
    load,
)
from service.db.connections.engine import create_engine
from service.db.database import Database
from service.db.operations import migrate as migrations
from service.db.operations.ledger import ledger_differences
from service.db.operations.readiness import describe_store_error, readiness_problem
from service.db.operations.retention import delete_expired_events, delete_expired_request_ids
from service.devtools.embedded_postgres import EmbeddedPostgresError, embedded_postgres
from service.observability.logs import configure_logging
from service.rpc.call_context import x_request_id
from service.rpc.transport.event_loop import new_event_loop
from service.server import MESSAGE_ENCODERS, Server, StartError

if TYPE_CHECKING:
    from service.relay import Relay

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
        configure_logging(load(LogSettings), call_id=x_request_id)
        if not dev:
            settings = load(ServerSettings, host=host, port=port)
            _run(_serve(settings), partial(new_event_loop, settings.accept_mode))
            return
        development = load(DevelopmentSettings)
        with embedded_postgres(development.data_dir, bin_dir=development.postgres_bin) as database_url:
            # Nobody is to be led away from here, so Ctrl-C need not wait.
            settings = load(
                ServerSettings, DATABASE_URL=database_url, host=host, port=port, max_connection_age=0, shutdown_grace=1
            )
            _run(_migrate(settings, "head"))
            _run(_serve(settings, development.data_dir), partial(new_event_loop, settings.accept_mode))


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
    if settings.pgbouncer_mode != "none":
        raise migrations.MigrationError(
            "migrating takes a lock that belongs to a session: run this with the DATABASE_URL of PostgreSQL itself, and"
            " without COMMERCE_PGBOUNCER_MODE"
        )
    engine = create_engine(settings, pool_size=1)
    try:
        return await migrations.upgrade(engine, revision)
    finally:
        await engine.dispose()


async def _check(settings: DatabaseSettings) -> None:
    engine = create_engine(settings, pool_size=1)
    try:
        if problem := await readiness_problem(engine):
            raise StartError(problem)
    finally:
        await engine.dispose()


@main.command()
def gc() -> None:
    """Do what time alone decides; run it every hour or so, from as many places as you like.

    Gives back credit set aside for orders not confirmed in time, erases users deleted for 30 days (but for those with
    open orders or credit), deletes answers to request ids after 24 hours, and events after
    COMMERCE_EVENT_RETENTION_DAYS (90), but for those that a relay has yet to publish. Also keeps users as they are sent
    that are not kept yet, so that they are quicker to read.
    """
    with _one_line_errors():
        configure_logging(load(LogSettings))
        settings = load(GcSettings)
        _run(_check(settings))
        for line in _run(_gc(settings)):
            click.echo(line)


async def _gc(settings: GcSettings) -> list[str]:
    store = Database(settings, MESSAGE_ENCODERS)
    now = datetime.now(UTC)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return store.unit_of_work(actor="gc", request=None, time_left=lambda: settings.db_statement_timeout)

    try:
        expired = await expire_holds(unit_of_work, store.maintenance_queries, now)
        purged, kept = await purge_deleted_users(unit_of_work, store.maintenance_queries, now)
        swept = await delete_expired_request_ids(store.engine)
        events = await delete_expired_events(store.engine, timedelta(days=settings.event_retention_days))
        users = await backfill_encoded_users(unit_of_work)
    finally:
        await store.close()
    return [
        f"gave back the credit held for {expired} orders",
        f"erased {purged} deleted users, kept {kept} with open orders or credit",
        f"swept {swept} expired request ids",
        f"swept {events} old events",
        f"made {users} users quicker to read",
    ]


@main.command()
@click.option("--nats-url", help="NATS server to publish to, instead of COMMERCE_NATS_URL.")
@click.option("--stream", help="JetStream stream, instead of COMMERCE_RELAY_STREAM (commerce); made if there is none.")
@click.option("--name", help="Name of the cursor, instead of COMMERCE_RELAY_NAME (nats).")
def relay(*, nats_url: str | None, stream: str | None, name: str | None) -> None:
    """Publish events to NATS JetStream as CloudEvents, until SIGTERM or Ctrl-C.

    Every event at least once, and those of one user or order in their order. Several can run for the same name: one
    publishes, and the others take over when it ends.
    """
    with _one_line_errors():
        configure_logging(load(LogSettings))
        settings = load(RelaySettings, nats_url=nats_url, relay_stream=stream, relay_name=name)
        try:
            # Here, because what it needs is not installed everywhere.
            from service.relay import Relay, RelayError  # noqa: PLC0415
        except ImportError as error:
            raise click.ClickException("nats-py is not installed: pip install 'commerce-service[relay]'") from error
        try:
            _run(_relay(Relay(settings)))
        except RelayError as error:
            raise click.ClickException(str(error)) from error


async def _relay(relay: "Relay") -> None:
    try:
        await relay.check()
        publishing = asyncio.create_task(relay.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, publishing.cancel)
        # Cancelled in the middle of its work, it would do that again: nothing is lost.
        with suppress(asyncio.CancelledError):
            await publishing
    finally:
        await relay.close()


@main.command("verify-ledger")
def verify_ledger() -> None:
    """Recompute every credit balance from its entries; fail and name each difference if there is one."""
    with _one_line_errors():
        differences = _run(_verify_ledger(load(DatabaseSettings)))
        for difference in differences:
            click.echo(difference, err=True)
        if differences:
            raise click.ClickException(f"the ledger has {len(differences)} differences")
        click.echo("every balance is the sum of its entries")


async def _verify_ledger(settings: DatabaseSettings) -> Sequence[str]:
    engine = create_engine(settings, pool_size=1)
    try:
        return await ledger_differences(engine)
    finally:
        await engine.dispose()


@main.command()
def version() -> None:
    """Print the version of the service, and of the schema that it needs."""
    click.echo(
        f"commerce {version_of('commerce-service')}, schema {migrations.head()}, Python {sys.version.split()[0]}"
    )


main.add_command(import_users)
main.add_command(export_orders)


def _run(work: Coroutine[Any, Any, T], new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop) -> T:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except StoreError as error:
        raise click.ClickException(describe_store_error(error)) from error
