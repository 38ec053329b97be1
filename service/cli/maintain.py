"""The maintenance commands: `commerce gc` and `commerce verify-ledger`."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import click

from service.application.maintenance import backfill_encoded_users, expire_holds, purge_deleted_users
from service.application.ports.unit_of_work import UnitOfWork
from service.cli.migrate import check_schema
from service.cli.running import load_and_log, one_line_errors, run, single_connection
from service.config import DatabaseSettings, GcSettings, load, warn_of_unknown_variables
from service.db.database import Database
from service.db.operations.ledger import ledger_differences
from service.db.operations.retention import delete_expired_events, delete_expired_request_ids
from service.server import MESSAGE_ENCODERS


def gc() -> None:
    """Run periodic maintenance."""
    with one_line_errors():
        settings = load_and_log(GcSettings)
        run(check_schema(settings))
        for line in run(_gc(settings)):
            click.echo(line)


async def _gc(settings: GcSettings) -> list[str]:
    database = Database(settings, MESSAGE_ENCODERS)
    now = datetime.now(UTC)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return database.unit_of_work(actor="gc", request=None, time_left=lambda: settings.db_statement_timeout)

    try:
        expired = await expire_holds(unit_of_work, database.maintenance_queries, now)
        purged, in_use = await purge_deleted_users(unit_of_work, database.maintenance_queries, now)
        request_ids = await delete_expired_request_ids(database.engine)
        events = await delete_expired_events(database.engine, timedelta(days=settings.event_retention_days))
        encoded = await backfill_encoded_users(unit_of_work)
    finally:
        await database.close()
    return [
        f"released the expired credit holds of {expired} orders",
        f"purged {purged} deleted users; {in_use} others have open orders or credit",
        f"deleted {request_ids} expired request ids",
        f"deleted {events} expired events",
        f"stored the encoded messages of {encoded} users",
    ]


def verify_ledger() -> None:
    """Compare every credit balance with the sum of its entries; print each difference and fail if there is one."""
    with one_line_errors():
        settings = load(DatabaseSettings)
        warn_of_unknown_variables()
        differences = run(_ledger_differences(settings))
        for difference in differences:
            click.echo(difference, err=True)
        if differences:
            raise click.ClickException(f"the ledger has {len(differences)} differences")
        click.echo("every balance equals the sum of its entries")


async def _ledger_differences(settings: DatabaseSettings) -> Sequence[str]:
    async with single_connection(settings) as engine:
        return await ledger_differences(engine)
