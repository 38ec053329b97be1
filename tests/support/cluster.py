"""Run a PostgreSQL for tests, with a migrated template, until Ctrl-C: `make test-cluster`."""

import asyncio
import fcntl
import signal
import sys
from pathlib import Path

import click

from service.db.connections.engine import async_url
from service.devtools.embedded_postgres import embedded_postgres
from service.devtools.errors import EmbeddedPostgresError
from tests.support.databases import driver_connection, migrated_template
from tests.support.paths import ROOT

TEST_CLUSTER = ROOT / ".test-cluster"


def is_locked(path: Path) -> bool:
    """Return whether a process has locked this file, as one that runs a server of `embedded_postgres` has."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


async def prepare(url: str) -> None:
    """Create the template, and drop databases left by killed test runs and by other migrations."""
    template = async_url(await migrated_template(url)).database
    async with driver_connection(url) as connection:
        others = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> ALL ($1)"
        for (name,) in await connection.fetch(others, ["postgres", template]):
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def main() -> None:
    """Run the server until the process is told to stop."""
    if is_locked(TEST_CLUSTER / "lock"):
        click.echo(f"The test cluster in {TEST_CLUSTER.name} is already running")
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # SIGINT too, because a shell's background jobs ignore it
    try:
        with embedded_postgres(TEST_CLUSTER) as url:
            asyncio.run(prepare(url))
            # Only SQLAlchemy understands the name of a driver in the URL.
            click.echo(f"The test cluster runs until Ctrl-C; `make tests T=…` uses it: {url.replace('+asyncpg', '')}")
            while True:
                signal.pause()
    except KeyboardInterrupt:
        click.echo("The test cluster has stopped")
    except EmbeddedPostgresError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
