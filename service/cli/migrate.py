"""The `commerce migrate` command."""

import click

from service.cli.running import one_line_errors, run, single_connection
from service.config import DatabaseSettings, load, warn_of_unknown_variables
from service.db.operations import migrate as migrations
from service.db.operations.readiness import readiness_problem
from service.runtime.errors import OperatorError


def migrate(revision: str, *, check: bool) -> None:
    """Migrate the schema to a revision, or check whether this build can serve it."""
    with one_line_errors():
        warn_of_unknown_variables()
        settings = load(DatabaseSettings)
        if check:
            run(check_schema(settings))
            click.echo("the schema is up to date")
        else:
            migrated = run(migrate_schema(settings, revision))
            click.echo("migrated" if migrated else "nothing to migrate")


async def migrate_schema(settings: DatabaseSettings, revision: str) -> bool:
    """Migrate the schema to a revision, and return whether a migration ran; raises MigrationError."""
    if settings.pgbouncer_mode != "none":
        raise migrations.MigrationError(
            "migrating needs a session lock, which PgBouncer does not support in transaction mode: set DATABASE_URL to"
            " the URL of PostgreSQL itself, and unset COMMERCE_PGBOUNCER_MODE"
        )
    async with single_connection(settings) as engine:
        return await migrations.upgrade(engine, revision)


async def check_schema(settings: DatabaseSettings) -> None:
    """Raise OperatorError if this build cannot use the database."""
    async with single_connection(settings) as engine:
        if problem := await readiness_problem(engine):
            raise OperatorError(problem)
