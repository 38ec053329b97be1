"""Connections through PgBouncer in transaction mode, where each transaction may run on another server connection.

Session state is not preserved there: PgBouncer refuses time limits in the startup parameters of a connection, and a
prepared statement exists on only one server connection. So statements are prepared without a name, and each transaction
sets the limits together with its BEGIN. A single statement also needs a transaction for the limits, so a read takes
three round trips instead of one.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import asyncpg

# Options for `asyncpg.connect` and SQLAlchemy's dialect: no prepared statement has a name or is cached.
UNPREPARED: Mapping[str, Any] = MappingProxyType(
    {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
)


def connection_class(limits: Mapping[str, str]) -> type[asyncpg.Connection]:
    """Return a connection class that sets these limits in each transaction.

    Args:
        limits: the PostgreSQL settings to set, with their values.
    """
    set_limits = "".join(f"SET LOCAL {name} = '{value}';" for name, value in limits.items())

    class PooledConnection(asyncpg.Connection):  # type: ignore[misc] # has no types
        # How long to wait for each answer while `fetch` runs.
        _timeout: float | None = None

        async def execute(self, query: str, *arguments: object, **options: Any) -> Any:  # noqa: ANN401 - no types
            # All transactions of asyncpg begin with this, including those that SQLAlchemy starts.
            if query.startswith("BEGIN"):
                query += set_limits
            options.setdefault("timeout", self._timeout)
            return await super().execute(query, *arguments, **options)

        async def fetch(self, query: str, *arguments: object, **options: Any) -> Any:  # noqa: ANN401 - no types
            self._timeout = options.get("timeout")
            try:
                async with self.transaction():
                    return await super().fetch(query, *arguments, **options)
            finally:
                self._timeout = None

    return PooledConnection
