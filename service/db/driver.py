"""Hot statements: written in SQLAlchemy Core, compiled once at start, run on the driver's own connection.

What SQLAlchemy does for a statement in each call (building it, its cache key, a cursor, its own rows, and the greenlet
around all that) costs two to three times what asyncpg takes to run it. Here, only its pool is left of that; the
connections, their settings and their limits are the same. GetUser costs 0.5 of what it did.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import asyncpg
from sqlalchemy import Executable, Numeric
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import greenlet_spawn

from service.application.ports import DatabaseUnavailable
from service.db.errors import meaning_of

_DIALECT: Any = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]
# Types that the driver gives as they are, whatever PostgreSQL calls the type of the column.
_NUMERIC_OID = 1700

# Values of a statement's parameters, by their name.
Values = Mapping[str, object]
_Processor = Callable[[Any], Any]


class Statement:
    """A statement of SQLAlchemy Core, compiled.

    Attributes:
        core: the statement itself.
        text: what PostgreSQL gets.
    """

    def __init__(self, core: Executable) -> None:
        compiled: Any = core.compile(dialect=_DIALECT)  # type: ignore[attr-defined] # every statement has it
        self.core = core
        self.text = str(compiled)
        processors: Mapping[str, _Processor] = compiled._bind_processors  # noqa: SLF001 - as SQLAlchemy's own execution
        # Those of literals, which no call names.
        constants = compiled.params
        self._parameters = [(name, constants[name], processors.get(name)) for name in compiled.positiontup or ()]
        columns = compiled._result_columns  # noqa: SLF001
        self._row: Any = namedtuple("Row", [column.keyname for column in columns])  # type: ignore[misc] # noqa: PYI024 - the columns are known only now
        processed = ((index, _result_processor(column.type)) for index, column in enumerate(columns))
        self._processed = [(index, processor) for index, processor in processed if processor]

    def arguments(self, values: Values) -> list[Any]:
        """Return the values of the parameters, in their order."""
        return [
            processor(values.get(name, constant)) if processor else values.get(name, constant)
            for name, constant, processor in self._parameters
        ]

    def rows(self, records: Sequence[Any]) -> list[Any]:
        """Return the driver's records as rows, with the attributes and types that Core would give."""
        make = self._row._make
        if not self._processed:
            return [make(record) for record in records]
        rows = []
        for record in records:
            values = list(record)
            for index, processor in self._processed:
                values[index] = processor(values[index])
            rows.append(make(values))
        return rows


def _result_processor(kind: TypeEngine[Any]) -> _Processor | None:
    oid = _NUMERIC_OID if isinstance(kind, Numeric) else None
    # The dialect's own form of the type, as for a statement that SQLAlchemy runs.
    return cast("_Processor | None", kind._cached_result_processor(_DIALECT, oid))  # noqa: SLF001


class Driver:
    """Runs hot statements on the connections of an engine's pool, each in a transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool = engine.sync_engine.pool

    async def fetch(self, statement: Statement, values: Values) -> list[Any]:
        """Return all rows of a statement.

        A cancellation costs the connection, so whoever may be cancelled shields this.

        Raises:
            StoreError: and what a constraint means.
        """
        try:
            pooled = await self._check_out()
        except Exception as error:
            if meaning := meaning_of(error):
                raise meaning from error
            raise
        connection = cast("Any", pooled.driver_connection)
        try:
            return statement.rows(await connection.fetch(statement.text, *statement.arguments(values)))
        except asyncpg.PostgresError as error:
            if connection.is_closed():
                pooled.invalidate()
                raise DatabaseUnavailable from error
            if meaning := meaning_of(error):
                raise meaning from error
            raise
        except BaseException as error:
            # Nobody knows what the connection is in the middle of.
            closed = connection.is_closed()
            pooled.invalidate()
            if closed or isinstance(error, OSError):
                raise DatabaseUnavailable from error
            raise
        finally:
            pooled.close()

    async def _check_out(self) -> PoolProxiedConnection:
        while True:
            try:
                # Without the detour through a greenlet where one is idle.
                pooled = self._pool.connect()
            except MissingGreenlet:
                pooled = await greenlet_spawn(self._pool.connect)
            connection = cast("Any", pooled.driver_connection)
            if not connection.is_closed():
                return pooled
            # PostgreSQL ended it while it was idle.
            pooled.invalidate()
            pooled.close()
