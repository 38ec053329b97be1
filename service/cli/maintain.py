"""The maintenance commands: `gc`, `verify-ledger`, `restore-events`, `purged-users` and `purge-again`."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
import structlog

from service.application.maintenance import (
    backfill_encoded_users,
    backfill_search_words,
    by_itself,
    expire_holds,
    purge_again,
    purge_deleted_users,
)
from service.application.ports.unit_of_work import UnitOfWork
from service.cli.migrate import check_schema
from service.cli.running import load_and_log, one_line_errors, run, single_connection
from service.config import DatabaseSettings, GcSettings, load, warn_of_unknown_variables
from service.db.database import Database
from service.db.operations.ledger import ledger_differences
from service.db.operations.maintenance_runs import LEDGER_CHECK, record_run
from service.db.operations.purged_users import PurgedUser, purged_users
from service.db.operations.restored_events import restore_events as restore_stored_events
from service.db.operations.retention import (
    delete_expired_events,
    delete_expired_request_ids,
    delete_old_sign_in_attempts,
)
from service.domain.errors import DomainError
from service.observability.logs import where_raised
from service.runtime.errors import OperatorError
from service.server import MESSAGE_ENCODERS

# What a part of the maintenance has deleted or updated, and other numbers of it.
Counts = tuple[int, ...]

log = structlog.get_logger()


def gc() -> None:
    """Run periodic maintenance."""
    with one_line_errors():
        settings = load_and_log(GcSettings)
        run(check_schema(settings))
        failures = _Failures()
        for line in run(_gc(settings, failures)):
            click.echo(line)
        if failures.count:
            raise click.ClickException(f"parts of the maintenance that failed: {failures.count}; the log names them")


class _Failures:
    """Logs and counts the parts of the maintenance that failed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, name: str, error: Exception) -> None:
        """Log a failure."""
        self.count += 1
        # The messages of domain errors contain nothing personal; those of other errors may.
        reason = error.reason if isinstance(error, DomainError) else type(error).__name__
        log.error("maintenance failed", part=name, reason=reason, **where_raised(error))


async def _gc(settings: GcSettings, failures: _Failures) -> list[str]:
    database = Database(settings, MESSAGE_ENCODERS)
    engine, queries, now = database.engine, database.maintenance_queries, datetime.now(UTC)
    retention = timedelta(days=settings.event_retention_days)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return database.unit_of_work(actor="gc", request=None, time_left=lambda: settings.db_statement_timeout)

    async def step(name: str, work: Callable[[], Awaitable[Counts]], otherwise: Counts) -> Counts:
        """Do one part; the first number of its result is that of what it has deleted or updated."""
        before = failures.count
        counts = await by_itself(name, work, failures, otherwise)
        part, succeeded = name.replace(" ", "_"), failures.count == before

        async def record() -> None:
            await record_run(engine, part, succeeded=succeeded, handled=counts[0])

        await by_itself(f"the record of {name}", record, failures, None)
        return counts

    async def count(name: str, work: Callable[[], Awaitable[int]]) -> int:
        async def counted() -> Counts:
            return (await work(),)

        return (await step(name, counted, (0,)))[0]

    try:
        expired = await count("credit holds", lambda: expire_holds(unit_of_work, queries, now, failures))
        purged, in_use = await step(
            "deleted users", lambda: purge_deleted_users(unit_of_work, queries, now, failures), (0, 0)
        )
        request_ids = await count("request ids", lambda: delete_expired_request_ids(engine))
        sign_ins = await count("attempts to sign in", lambda: delete_old_sign_in_attempts(engine))
        events = await count("events", lambda: delete_expired_events(engine, retention))
        encoded = await count("encoded messages", lambda: backfill_encoded_users(unit_of_work))
        words = await count("search words", lambda: backfill_search_words(unit_of_work))
    finally:
        await database.close()
    return [
        f"released the expired credit holds of {expired} orders",
        f"purged {purged} deleted users; {in_use} others have open orders or credit",
        f"deleted {request_ids} expired request ids",
        f"deleted {sign_ins} old counts of attempts to sign in",
        f"deleted {events} expired events",
        f"stored the encoded messages of {encoded} users",
        f"replaced the search words of {words} users and notes",
    ]


def verify_ledger(*, record: bool) -> None:
    """Compare every credit balance with the sum of its entries; print each difference and fail if there is one."""
    with one_line_errors():
        warn_of_unknown_variables()
        settings = load(DatabaseSettings)
        if record:
            run(check_schema(settings))
        differences = run(_ledger_differences(settings))
        for difference in differences:
            click.echo(difference, err=True)
        # Only now, so that the differences are known even if they cannot be recorded.
        if record:
            run(_record_check(settings, succeeded=not differences))
        if differences:
            raise click.ClickException(f"the ledger has {len(differences)} differences")
        click.echo("every balance equals the sum of its entries")


async def _record_check(settings: DatabaseSettings, *, succeeded: bool) -> None:
    async with single_connection(settings) as engine:
        await record_run(engine, LEDGER_CHECK, succeeded=succeeded, handled=0)


async def _ledger_differences(settings: DatabaseSettings) -> Sequence[str]:
    async with single_connection(settings) as engine:
        return await ledger_differences(engine)


def restore_events() -> None:
    """Let new events follow those that were restored from a dump, and make the cursors of all watches invalid."""
    with one_line_errors():
        warn_of_unknown_variables()
        settings = load(DatabaseSettings)
        run(_restore_events(settings))
        click.echo("new events follow the restored ones; watches must start again from the earliest event")


async def _restore_events(settings: DatabaseSettings) -> None:
    async with single_connection(settings) as engine:
        await restore_stored_events(engine)


def print_purged_users() -> None:
    """Print a line with the id and the time of each purge that the events tell of, the oldest first."""
    with one_line_errors():
        warn_of_unknown_variables()
        settings = load(DatabaseSettings)
        for user in run(_purged_users(settings)):
            click.echo(f"{user.id} {user.purge_time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")


async def _purged_users(settings: DatabaseSettings) -> Sequence[PurgedUser]:
    async with single_connection(settings) as engine:
        return await purged_users(engine)


def purge_users_again(lines: Iterable[str]) -> None:
    """Purge the users in the lines of `print_purged_users` that a restored backup has brought back."""
    with one_line_errors():
        settings = load_and_log(DatabaseSettings)
        user_ids = list(_user_ids(lines))
        run(check_schema(settings))
        failures = _Failures()
        purged = run(_purge_again(settings, user_ids, failures))
        click.echo(f"purged {purged} of {len(user_ids)} users again; the others are not in the database")
        if failures.count:
            raise click.ClickException(f"users that could not be purged: {failures.count}; the log names them")


def _user_ids(lines: Iterable[str]) -> Sequence[UUID]:
    """Return the ids at the beginning of lines, each once; raises OperatorError."""
    user_ids: dict[UUID, None] = {}
    for number, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        try:
            user_ids[UUID(words[0])] = None
        except ValueError:
            raise OperatorError(f"line {number} does not begin with the id of a user; nothing was purged") from None
    return list(user_ids)


async def _purge_again(settings: DatabaseSettings, user_ids: Sequence[UUID], failures: _Failures) -> int:
    database = Database(settings, MESSAGE_ENCODERS)

    def unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        return database.unit_of_work(actor="gc", request=None, time_left=lambda: settings.db_statement_timeout)

    try:
        return await purge_again(unit_of_work, user_ids, datetime.now(UTC), failures)
    finally:
        await database.close()
