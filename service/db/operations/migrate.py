"""Migrate the schema. Several processes may do so concurrently: one migrates, and the others wait for it.

Alembic is imported only to migrate: a server needs no more than the names of the revisions, and Alembic would take an
eighth of the time that it loads.
"""

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.db.errors import sqlstate_of, translated_errors
from service.runtime.errors import OperatorError

if TYPE_CHECKING:
    from alembic.config import Config

# The number of the advisory lock ("commerce" in ASCII), the same in every process of this service.
_LOCK = 0x636F6D6D65726365
_UNDEFINED_TABLE = "42P01"


# Raised by a migration that finds data which it cannot migrate.
_RAISED = "P0001"
ENCODING = "current_setting('server_encoding')"


class MigrationError(OperatorError):
    """The schema could not be migrated to the revision."""


def _migrations() -> Path:
    """Return the folder of the migrations: inside an installed package, beside the package in the source tree."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def alembic_config(url: URL | None = None) -> "Config":
    """Return the configuration of Alembic; without a URL, `migrations/env.py` uses that of the settings."""
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    config.attributes["url"] = url
    return config


@cache
def _revisions() -> tuple[str, ...]:
    """Return the revisions that this build knows, the oldest first; the names of the files begin with them."""
    return tuple(sorted(path.name.partition("_")[0] for path in (_migrations() / "versions").glob("[0-9]*.py")))


def head() -> str:
    """Return the newest revision that this build knows."""
    if not _revisions():
        raise MigrationError("there are no migrations")
    return _revisions()[-1]


async def current(connection: AsyncConnection) -> str | None:
    """Return the revision of the schema, None before the first migration; raises StoreError."""
    with translated_errors():
        try:
            revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        except Exception as error:
            if sqlstate_of(error) == _UNDEFINED_TABLE:
                return None
            raise
    return revision


def encoding_problem(encoding: str) -> str | None:
    """Return what is wrong with the encoding of the database, as one line for an operator."""
    if encoding == "UTF8":
        return None
    return (
        f"the database has the encoding {encoding}, which cannot store every text: create another one with"
        " CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C', and change DATABASE_URL"
    )


def is_behind(revision: str | None) -> bool:
    """Return whether this build cannot serve a schema at this revision.

    A build can serve its own newest revision, and any revision that it does not know. An unknown revision comes from a
    later build. Its migrations preserve everything that earlier builds use, until no earlier build runs.
    """
    return revision is None or (revision in _revisions() and revision != head())


def schema_problem(revision: str | None) -> str | None:
    """Return why this build cannot serve a schema at this revision, as one line for an operator; None if it can."""
    if not is_behind(revision):
        return None
    return f"the schema is at revision {revision or 'none'}, and this build needs {head()}: run `commerce migrate`"


async def upgrade(engine: AsyncEngine, revision: str = "head", *, patience: float = 600) -> bool:
    """Migrate the schema up to a revision and return whether a migration ran.

    Raises:
        MigrationError: there is no such revision, the database has the wrong encoding or data that a migration refuses,
            or another process held the lock for `patience` seconds.
        StoreError: the database failed.
    """
    target = head() if revision == "head" else revision
    if target not in _revisions():
        raise MigrationError(f"there is no migration {revision}; the newest one is {head()}")
    give_up = time.monotonic() + patience
    with translated_errors():
        # AUTOCOMMIT, because CREATE INDEX CONCURRENTLY in a migration waits for all open transactions: it would wait
        # forever for a transaction of this connection.
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            if problem := encoding_problem(await connection.scalar(text(f"SELECT {ENCODING}")) or ""):
                raise MigrationError(problem)
            while not _reached(await current(connection), target):
                if await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
                    try:
                        return await _upgrade_locked(engine, connection, target)
                    finally:
                        await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                if time.monotonic() > give_up:
                    message = (
                        f"another process has been migrating the schema for {patience:.0f} s; try again when it is done"
                    )
                    raise MigrationError(message)
                await asyncio.sleep(0.2)
    return False


def _reached(revision: str | None, target: str) -> bool:
    """Return whether a schema at this revision includes the target; a revision unknown to this build is a later one."""
    if revision is None:
        return False
    return revision not in _revisions() or _revisions().index(revision) >= _revisions().index(target)


async def _upgrade_locked(engine: AsyncEngine, connection: AsyncConnection, target: str) -> bool:
    if _reached(await current(connection), target):
        return False
    from alembic import command  # noqa: PLC0415 - see above

    # In a thread: Alembic is synchronous, and `migrations/env.py` starts an event loop of its own.
    try:
        await asyncio.to_thread(command.upgrade, alembic_config(engine.url), target)
    except DBAPIError as error:
        if sqlstate_of(error) != _RAISED:
            raise
        raise MigrationError(getattr(error.orig and error.orig.__cause__, "message", str(error.orig))) from error
    return True
