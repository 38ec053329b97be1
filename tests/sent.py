"""What the service sends to PostgreSQL, how that plans it, and who waits there."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.pool import Pool


@contextmanager
def sent_statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that are sent while the block runs, each with its values, but for BEGIN and the like."""
    sent: list[tuple[str, Any]] = []
    listening: list[asyncpg.Connection] = []

    def keep(record: asyncpg.connection.LoggedQuery) -> None:
        # The server looks at its schema every second, whatever it is asked.
        if record.args and "alembic_version" not in record.query:
            sent.append((record.query, record.args))

    def listen(connection: Any, *_rest: object) -> None:
        listening.append(connection.driver_connection)
        connection.driver_connection.add_query_logger(keep)

    event.listen(Pool, "checkout", listen)
    try:
        yield sent
    finally:
        event.remove(Pool, "checkout", listen)
        for connection in listening:
            connection.remove_query_logger(keep)


async def plan_of(connection: asyncpg.Connection, sent: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes of the plan of the only statement sent, the uppermost first."""
    ((statement, values),) = sent
    plan = json.loads(await connection.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) {statement}", *values))
    return list(_nodes(plan[0]["Plan"]))


def indexes_of(plan: list[dict[str, Any]]) -> set[str]:
    """Return the indexes that a plan uses, having made sure that it reads no table as a whole."""
    whole = [node["Relation Name"] for node in plan if node["Node Type"].endswith("Seq Scan")]
    assert not whole
    return {node["Index Name"] for node in plan if "Index Name" in node}


async def until_someone_waits(connection: asyncpg.Connection) -> None:
    """Return once a transaction waits for a lock that this connection has."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waits):  # noqa: ASYNC110 - only the database knows
            await asyncio.sleep(0.01)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)
