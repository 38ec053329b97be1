"""Many rows in one statement: INSERT … SELECT … FROM unnest(arrays), which has the same text however many they are."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, Table, Text, bindparam, column, func, literal, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.types import TypeEngine


def insert_arrays(table: Table, names: Sequence[str], **constants: object) -> Insert:
    """Return a statement that inserts the rows of `arrays`.

    Args:
        table: where to.
        names: the columns that the rows have.
        constants: values of further columns, the same in all rows.
    """
    parameters = (bindparam(f"{name}s", type_=ARRAY(_type(table.c[name]))) for name in names)
    source = func.unnest(*parameters).table_valued(*names, name="rows").render_derived()
    values: list[ColumnElement[Any]] = [*map(column, names), *map(literal, constants.values())]
    rows = select(*values).select_from(source)
    return insert(table).from_select([*names, *constants], rows)


def arrays(names: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, list[Any]]:
    """Return the parameters of `insert_arrays` for one or more rows, each in the order of the columns."""
    return {f"{name}s": list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _type(target: Column[Any]) -> TypeEngine[Any]:
    # An array's type takes no collation.
    return Text() if isinstance(target.type, Text) else target.type
