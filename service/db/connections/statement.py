"""Statements of SQLAlchemy Core, compiled once at start for asyncpg's own connection."""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import Executable, Float, Numeric
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.types import TypeEngine

from service.db.connections.engine import JSON
from service.db.connections.sqlalchemy_compiled import Processor, bind_processors, result_columns, result_processor
from service.db.types import EnumText

_DIALECT: Any = asyncpg_dialect.dialect(**JSON)  # type: ignore[no-untyped-call] # has no types
# asyncpg returns decimals for PostgreSQL's numeric, the only type that Numeric columns have here.
_NUMERIC_OID = 1700

# Values of a statement's parameters, by their name.
Values = Mapping[str, object]


class Statement:
    """A statement of SQLAlchemy Core, compiled.

    Attributes:
        name: the name in logs, golden files and plans.
        core: the statement itself.
        text: the SQL that is sent to PostgreSQL.
    """

    def __init__(self, name: str, core: Executable) -> None:
        compiled: Any = core.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined] # every statement has it
        self.name = name
        self.core = core
        self.text = str(compiled)
        processors = bind_processors(compiled)
        # Literals are parameters too, but `arguments` gets no values for them.
        self._parameters: list[tuple[str, Processor | None, Any]] = []
        for parameter in compiled.positiontup or ():
            processor, literal = processors.get(parameter), compiled.params[parameter]
            default = processor(literal) if processor and literal is not None else literal
            self._parameters.append((parameter, processor, default))
        columns = result_columns(compiled)
        row: Any = namedtuple("Row", [column.name for column in columns])  # type: ignore[misc] # noqa: PYI024 - the columns are known only now
        # Faster than the class's own `_make`, which is written in Python and checks the number of values.
        self._make_row = partial(tuple.__new__, row)
        processed = ((index, _processor_of(column.type)) for index, column in enumerate(columns))
        self._processed = [(index, processor) for index, processor in processed if processor]
        indexes = [index for index, _ in self._processed]
        # A single value is not in a tuple.
        self._values_to_process = itemgetter(*indexes) if indexes else tuple
        self._nulls = (None,) * len(indexes) if len(indexes) > 1 else None

    def arguments(self, values: Values) -> list[Any]:
        """Return the values of all parameters in order, converted for asyncpg."""
        return [
            (processor(values[name]) if processor else values[name]) if name in values else default
            for name, processor, default in self._parameters
        ]

    def rows(self, records: Sequence[Any]) -> list[Any]:
        """Return asyncpg's records as rows with the attributes and values that SQLAlchemy would return.

        There is one exception: the members of enums stay strings, which are equal to the members. NULL is None for
        every type.
        """
        make = self._make_row
        if not self._processed:
            return [make(record) for record in records]
        values_to_process, nulls = self._values_to_process, self._nulls
        rows = []
        for record in records:
            # As in every row with an encoded message.
            if values_to_process(record) == nulls:
                rows.append(make(record))
                continue
            values = list(record)
            for index, processor in self._processed:
                if (value := values[index]) is not None:
                    values[index] = processor(value)
            rows.append(make(values))
        return rows


def _processor_of(kind: TypeEngine[Any]) -> Processor | None:
    if isinstance(kind, EnumText | Float):
        return None
    return result_processor(kind, _DIALECT, _NUMERIC_OID if isinstance(kind, Numeric) else None)
