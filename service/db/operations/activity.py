"""What the sessions of a server do in PostgreSQL at this moment, and what they wait for; without the text of SQL."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ARRAY, Integer, bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.connections.engine import for_single_statements
from service.db.errors import translated_errors

# Names of users and programs can be anything, also the e-mail address of a person.
_ADDRESS = re.compile(r"\S+@\S+")
# The sessions with these ids that do something. Through PgBouncer the ids are not known: then, all of this service.
# pg_blocking_pids stops the lock manager for a moment, so it is asked only for sessions that wait for a lock.
_SESSIONS = text("""
SELECT pid, application_name, usename, state, wait_event_type, wait_event,
       extract(epoch FROM clock_timestamp() - query_start)::float8 AS statement_seconds,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds,
       CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) ELSE '{}' END AS blocked_by
FROM pg_stat_activity
WHERE CASE WHEN :are_known THEN pid = ANY(:pids)
      ELSE datname = current_database() AND usename = current_user AND application_name LIKE 'commerce%' END
  AND pid <> pg_backend_pid() AND state <> 'idle'
""").bindparams(bindparam("pids", type_=ARRAY(Integer)))
# Of other users, PostgreSQL shows little to a user without the role pg_read_all_stats.
_BLOCKING = text("""
SELECT pid, application_name, usename, state, wait_event_type, wait_event,
       extract(epoch FROM clock_timestamp() - query_start)::float8 AS statement_seconds,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds,
       '{}'::int[] AS blocked_by
FROM pg_stat_activity WHERE pid = ANY(:pids)
""").bindparams(bindparam("pids", type_=ARRAY(Integer)))


class Session(NamedTuple):
    """A session of PostgreSQL.

    Attributes:
        pid: the process id of its backend.
        application: what its program calls itself, such as `commerce`, without e-mail addresses.
        user: the name of its user in PostgreSQL, without e-mail addresses.
        state: as in pg_stat_activity: `active`, or `idle in transaction`; empty if PostgreSQL does not show it.
        wait: what it waits for, such as `Lock: transactionid`; empty for nothing.
        statement_seconds: how long ago its last statement began; None if PostgreSQL does not show it.
        transaction_seconds: how long ago its transaction began; None without one.
        blocked_by: the process ids of the backends whose locks it waits for; 0 for a prepared transaction.
    """

    pid: int
    application: str
    user: str
    state: str
    wait: str
    statement_seconds: float | None
    transaction_seconds: float | None
    blocked_by: Sequence[int]


async def sessions(engine: AsyncEngine, pids: Collection[int] | None) -> list[Session]:
    """Return the sessions that do something, and others whose locks they wait for.

    Args:
        engine: connects to the server.
        pids: the process ids of the backends of the sessions; None for all of this service.

    Raises:
        StoreError, Overloaded: the server cannot be asked.
    """
    with translated_errors():
        async with for_single_statements(engine).connect() as connection:
            values = {"are_known": pids is not None, "pids": list(pids or ())}
            found = {row.pid: row for row in await connection.execute(_SESSIONS, values)}
            others = {pid for row in found.values() for pid in row.blocked_by} - found.keys()
            if others:
                found |= {row.pid: row for row in await connection.execute(_BLOCKING, {"pids": list(others)})}
    return [
        Session(
            row.pid,
            _without_addresses(row.application_name),
            _without_addresses(row.usename),
            row.state or "",
            ": ".join(filter(None, (row.wait_event_type, row.wait_event))),
            row.statement_seconds,
            row.transaction_seconds,
            row.blocked_by,
        )
        for row in found.values()
    ]


def _without_addresses(name: str | None) -> str:
    return _ADDRESS.sub("...", name or "")
