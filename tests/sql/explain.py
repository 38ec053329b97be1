"""Prints the statements of a method with the plans of PostgreSQL: `make explain METHOD=ConfirmOrder`.

Calls the method on an embedded PostgreSQL with 1 000 users and 20 000 orders. The plans are those of auto_explain, with
the time and the rows of each step.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.pool import Pool

from benchmarks.data import fill
from service.config import DatabaseSettings, LogSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations import migrate
from service.devtools.embedded_postgres import embedded_postgres
from service.observability.logs import configure_logging
from service.server import FAST_PATH_METHODS
from tests.sql.calls import both_servers, request_for
from tests.sql.formatting import format_sql
from tests.support.databases import driver_connection
from tests.support.methods import METHODS, call, path_of
from tests.support.sent_statements import NOT_OF_CALLS

USERS, ORDERS = 1_000, 20_000
# As in tests/support/volume.py, PostgreSQL sends each plan as a notice to the connection that sent the statement.
# Statements inside triggers have none.
_AUTO_EXPLAIN = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_level": "notice",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_triggers": "on",
    "auto_explain.log_parameter_max_length": "0",
}


@contextmanager
def explained_statements() -> Iterator[list[str]]:
    """Collect the statements that connections made in this block send, each with its plan."""
    explained: list[str] = []

    def hear(_connection: asyncpg.Connection, message: asyncpg.PostgresLogMessage) -> None:
        duration, found, plan = message.message.partition("plan:\nQuery Text: ")
        if found and not any(part in plan for part in NOT_OF_CALLS):
            explained.append(_readable(duration, plan))

    def listen(connection: Any, _record: object) -> None:
        connection.driver_connection.add_log_listener(hear)

    event.listen(Pool, "connect", listen)
    try:
        yield explained
    finally:
        event.remove(Pool, "connect", listen)


def _readable(duration: str, plan: str) -> str:
    # The plan begins with the first line that has costs; before it is the text of the statement, of several lines.
    lines = plan.splitlines()
    start = next(index for index, line in enumerate(lines) if "(cost=" in line)
    steps = [f"--   {line}" for line in lines[start:]]
    return "\n".join([format_sql("\n".join(lines[:start])), f"-- {duration.strip()}", *steps])


async def explain(database_url: str, method: str) -> str:
    """Return the statements of a method with their plans; fills the empty database first."""
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=1)
    await migrate.upgrade(engine)
    await engine.dispose()
    await fill(database_url, USERS, ORDERS)
    async with driver_connection(database_url) as connection:
        await connection.execute("VACUUM ANALYZE")
        for setting, value in _AUTO_EXPLAIN.items():
            name = async_url(database_url).database
            await connection.execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
    with explained_statements() as explained:
        async with both_servers(database_url) as servers:
            ways = {method: servers.transactions}
            if path_of(method) in FAST_PATH_METHODS:
                ways = {
                    f"{method} on the fast path": servers.fast_path,
                    f"{method} in a transaction": servers.transactions,
                }
            parts = []
            for way, clients in ways.items():
                request = await request_for(clients, method)
                explained.clear()
                await call(clients.channel, method, request)
                parts += [f"-- {way}:", *explained]
    return "\n\n".join(parts)


def main() -> None:
    """Explain the method that the command line names."""
    method = sys.argv[1] if len(sys.argv) > 1 else ""
    if method not in METHODS:
        problem = f"{method} is not a unary method" if method else "name a method"
        sys.exit(f"{problem}; for example: make explain METHOD=ConfirmOrder\nThe methods are: {', '.join(METHODS)}")
    configure_logging(load(LogSettings, log_level="error"))
    with TemporaryDirectory() as folder, embedded_postgres(Path(folder)) as url:
        print(asyncio.run(explain(url, method)))  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
