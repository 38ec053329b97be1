"""Pass many rows to one statement as arrays, so that the statement has the same text for any number of rows."""

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
    """Ids sent as the text of an array, because asyncpg encodes each element of a list in several steps."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[object] | None, _dialect: Dialect) -> str:
        """Return the ids in PostgreSQL's text form of an array."""
        return f"{{{','.join(map(str, value or ()))}}}"


def is_one_of(target: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column contains one of the ids in a parameter.

    The parameter is in a subquery, so that the planner does not see the number of ids. If the planner saw only a few,
    it would estimate that a custom plan is cheaper, and make a new plan for every execution: reading one user would
    take PostgreSQL twice as long.

    Args:
        target: the column.
        name: the name of the parameter.
    """
    ids = select(bindparam(name, type_=_Ids)).scalar_subquery()
    return target == any_(cast(ids, ARRAY(UUID)))


def insert_arrays(table: Table, names: Sequence[str], **constants: object) -> Insert:
    """Return a statement that inserts the rows of `arrays`: INSERT … SELECT … FROM unnest(…).

    Args:
        table: the target.
        names: the columns of the rows.
        constants: values of other columns, the same for all rows.
    """
    parameters = (bindparam(f"{name}s", type_=ARRAY(_type(table.c[name]))) for name in names)
    source = func.unnest(*parameters).table_valued(*names, name="rows").render_derived()
    values: list[ColumnElement[Any]] = [*map(column, names), *map(literal, constants.values())]
    rows = select(*values).select_from(source)
    return insert(table).from_select([*names, *constants], rows)


def arrays(names: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, list[Any]]:
    """Return the parameters of `insert_arrays`.

    Args:
        names: the columns of the rows.
        rows: one or more; each has its values in the order of the columns.
    """
    return {f"{name}s": list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _type(target: Column[Any]) -> TypeEngine[Any]:
    # PostgreSQL accepts no collation in the type of an array.
    return Text() if isinstance(target.type, Text) else target.type
