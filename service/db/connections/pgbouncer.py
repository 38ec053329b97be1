"""Connections that are right behind PgBouncer in transaction mode, where each transaction may get another server.

What belongs to a session is lost there: PgBouncer refuses limits among the parameters of a connection, and a prepared
statement is on one server only. So statements have no name, and the limits are set in each transaction, together with
its BEGIN; a statement by itself gets a transaction for that. (A read takes three round trips instead of one.)
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import asyncpg

# For `asyncpg.connect` by way of SQLAlchemy: nothing is prepared under a name, or for later.
UNPREPARED: Mapping[str, Any] = MappingProxyType(
    {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
)


def connection_class(limits: Mapping[str, str]) -> type[asyncpg.Connection]:
    """Return the class of connections whose transactions have these limits."""
    set_limits = "".join(f"SET LOCAL {name} = '{value}';" for name, value in limits.items())

    class PooledConnection(asyncpg.Connection):  # type: ignore[misc] # has no types
        async def execute(self, query: str, *arguments: object, **options: object) -> Any:  # noqa: ANN401
            # As asyncpg's transactions begin, also those of SQLAlchemy.
            if query.startswith("BEGIN"):
                query += set_limits
            return await super().execute(query, *arguments, **options)

        async def fetch(self, query: str, *arguments: object, **options: object) -> Any:  # noqa: ANN401
            async with self.transaction():
                return await super().fetch(query, *arguments, **options)

    return PooledConnection
