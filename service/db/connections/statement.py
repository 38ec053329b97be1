"""Statements of SQLAlchemy Core, compiled once at start, for the driver's own connection."""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from sqlalchemy import Executable, Numeric
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.types import TypeEngine

from service.db.connections.engine import JSON
from service.db.types import EnumText

_DIALECT: Any = asyncpg_dialect.dialect(**JSON)  # type: ignore[no-untyped-call]
# Types that the driver gives as they are, whatever PostgreSQL calls the type of the column.
_NUMERIC_OID = 1700

# Values of a statement's parameters, by their name.
Values = Mapping[str, object]
_Processor = Callable[[Any], Any]


class Statement:
    """A statement of SQLAlchemy Core, compiled.

    Attributes:
        name: what logs, golden files and plans call it.
        core: the statement itself.
        text: what PostgreSQL gets.
    """

    def __init__(self, name: str, core: Executable) -> None:
        compiled: Any = core.compile(dialect=_DIALECT)  # type: ignore[attr-defined] # every statement has it
        self.name = name
        self.core = core
        self.text = str(compiled)
        processors: Mapping[str, _Processor] = compiled._bind_processors  # noqa: SLF001 - as SQLAlchemy's own execution
        # Literals are parameters too; no call names them.
        self._parameters: list[tuple[str, _Processor | None, Any]] = []
        for parameter in compiled.positiontup or ():
            processor, literal = processors.get(parameter), compiled.params[parameter]
            known = processor(literal) if processor and literal is not None else literal
            self._parameters.append((parameter, processor, known))
        columns = compiled._result_columns  # noqa: SLF001
        row: Any = namedtuple("Row", [column.keyname for column in columns])  # type: ignore[misc] # noqa: PYI024 - the columns are known only now
        # Its own `_make` is written in Python, and checks how many values there are.
        self._make_row = partial(tuple.__new__, row)
        processed = ((index, _result_processor(column.type)) for index, column in enumerate(columns))
        self._processed = [(index, processor) for index, processor in processed if processor]

    def arguments(self, values: Values) -> list[Any]:
        """Return the values of the parameters, in their order."""
        return [
            (processor(values[name]) if processor else values[name]) if name in values else known
            for name, processor, known in self._parameters
        ]

    def rows(self, records: Sequence[Any]) -> list[Any]:
        """Return the driver's records as rows, with the attributes and values that Core would give.

        But for members of enums: they stay texts, which are equal to them. Null is None for every type.
        """
        make = self._make_row
        if not self._processed:
            return [make(record) for record in records]
        rows = []
        for record in records:
            values = list(record)
            for index, processor in self._processed:
                if (value := values[index]) is not None:
                    values[index] = processor(value)
            rows.append(make(values))
        return rows


def _result_processor(kind: TypeEngine[Any]) -> _Processor | None:
    if isinstance(kind, EnumText):
        return None
    oid = _NUMERIC_OID if isinstance(kind, Numeric) else None
    # The dialect's own form of the type, as for a statement that SQLAlchemy runs.
    return cast("_Processor | None", kind._cached_result_processor(_DIALECT, oid))  # noqa: SLF001
