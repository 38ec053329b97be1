"""Dumps of databases, made and restored by PostgreSQL's own programs."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from service.db.connections.engine import async_url
from service.devtools.postgres_programs import find_bin_dir


async def dump(url: str, file: Path, *options: str) -> None:
    """Write a dump of a database to a file, as a script for psql."""
    await _run("pg_dump", *options, "--file", str(file), dsn(url))


async def restore(url: str, file: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
    """Restore a dump in one transaction, which the first error ends."""
    stop = ("--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1")
    await _run("psql", *stop, *options, "--file", str(file), dsn(url), environment=environment)


def dsn(url: str) -> str:
    """Return the URL of a database as PostgreSQL's programs take it."""
    return async_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def _run(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    process = await asyncio.create_subprocess_exec(
        find_bin_dir() / program, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
