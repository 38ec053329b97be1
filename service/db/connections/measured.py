"""Measures what runs on the connections of an engine: an addition that listens to SQLAlchemy's events.

Statements that the executor runs on asyncpg's own connections are measured there
(`service.db.connections.executor`).
"""

import time
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Table, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql import visitors

from service.observability.metrics.statements import Statements

# Execution option of a statement: its name, for what has no table.
STATEMENT_NAME = "commerce_statement_name"
_OTHER = "other"
_BEGAN = "_commerce_began"


class MeasuredEngine:
    """Counts the connections and the statements of an engine.

    Args:
        engine: the engine.
        statements: counts its statements.

    Attributes:
        opened: how many connections were opened.
        invalidated: how many were given up because they were lost or broken.
    """

    def __init__(self, engine: AsyncEngine, statements: Statements) -> None:
        self.opened = self.invalidated = 0
        self._pool = engine.sync_engine.pool
        self._statements = statements
        # SQLAlchemy caches what it has compiled, so a statement that runs often is looked at only the first time.
        self._names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        event.listen(engine.sync_engine, "connect", self._on_connect)
        event.listen(engine.sync_engine, "invalidate", self._on_invalidate)
        event.listen(engine.sync_engine, "before_cursor_execute", self._on_execute)
        event.listen(engine.sync_engine, "after_cursor_execute", self._on_executed)
        event.listen(engine.sync_engine, "handle_error", self._on_error)

    @property
    def open(self) -> int:
        """How many connections are open."""
        pool = self._pool
        return pool.checkedin() + pool.checkedout() if isinstance(pool, QueuePool) else 0

    def _on_connect(self, _connection: object, _entry: object) -> None:
        self.opened += 1

    def _on_invalidate(self, _connection: object, _entry: object, _error: object) -> None:
        self.invalidated += 1

    def _on_execute(self, *arguments: Any) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        setattr(arguments[4], _BEGAN, time.perf_counter())

    def _on_executed(
        self,
        _connection: Connection,
        cursor: Any,  # noqa: ANN401 - as above
        _statement: str,
        _parameters: object,
        context: Any,  # noqa: ANN401 - as above
        _many: bool,  # noqa: FBT001 - as above
    ) -> None:
        self._statements.observe(
            self._name_of(context), time.perf_counter() - getattr(context, _BEGAN), max(0, cursor.rowcount)
        )

    def _on_error(self, failure: ExceptionContext) -> None:
        context: Any = failure.execution_context
        if (began := getattr(context, _BEGAN, None)) is not None:
            self._statements.observe(self._name_of(context), time.perf_counter() - began, None)

    def _name_of(self, context: Any) -> str:  # noqa: ANN401 - as above
        if name := context.execution_options.get(STATEMENT_NAME):
            return str(name)
        compiled = context.compiled
        if compiled is None:
            return _OTHER
        if (known := self._names.get(compiled)) is None:
            known = self._names[compiled] = _name_of(compiled)
        return known


def _name_of(compiled: Any) -> str:  # noqa: ANN401 - any statement, compiled
    """Return what a statement does and the first of its tables, such as `update_orders`: names of our schema."""
    statement = compiled.statement
    if compiled.isinsert or compiled.isupdate or compiled.isdelete:
        action = "insert" if compiled.isinsert else "update" if compiled.isupdate else "delete"
        return f"{action}_{statement.table.name}"
    table = next((element for element in visitors.iterate(statement) if isinstance(element, Table)), None)
    return _OTHER if table is None else f"select_{table.name}"


def statement_name(context: Any) -> str:  # noqa: ANN401 - an execution context of SQLAlchemy's
    """Return the name of the statement that an execution context of SQLAlchemy runs."""
    if name := context.execution_options.get(STATEMENT_NAME):
        return str(name)
    return _OTHER if context.compiled is None else _name_of(context.compiled)
