"""Many rows in one statement, which has the same text however many they are: arrays as parameters."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    UUID,
    Column,
    ColumnElement,
    Dialect,
    Table,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.types import TypeEngine


class _Ids(TypeDecorator[Iterable[object]]):
    """Ids as the text of an array: the driver looks at each one of a list several times before it writes it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[object] | None, _dialect: Dialect) -> str:
        """Return the text."""
        return f"{{{','.join(map(str, value or ()))}}}"


def is_one_of(target: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the ids of a parameter.

    They are in a subquery, where PostgreSQL does not look when it plans. If it saw how many there are, it would believe
    that to plan for so few is worth it, and do that in every call: to read one user would take it twice as long.
    """
    ids = select(bindparam(name, type_=_Ids)).scalar_subquery()
    return target == any_(cast(ids, ARRAY(UUID)))


def insert_arrays(table: Table, names: Sequence[str], **constants: object) -> Insert:
    """Return a statement that inserts the rows of `arrays`: INSERT … SELECT … FROM unnest(…).

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
