"""The only uses of SQLAlchemy's private attributes: the conversions of values that a compiled statement asks for.

SQLAlchemy has no public interface to convert values without its cursor and rows. It may change these attributes in any
release; each function here then raises `SQLAlchemyChangedError`, when the first statement is compiled at start.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Dialect
from sqlalchemy.types import TypeEngine

# Converts a value that is not None.
Processor = Callable[[Any], Any]


class SQLAlchemyChangedError(RuntimeError):
    """A private attribute that this module uses is gone."""

    def __init__(self, owner: object, attribute: str) -> None:
        super().__init__(
            f"SQLAlchemy {sqlalchemy.__version__}: {type(owner).__name__} has no attribute {attribute};"
            f" adapt {__name__} to this release, or install an earlier one"
        )


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of a statement's rows.

    Attributes:
        name: the row's attribute.
        type: the column's type, which knows its result processor.
    """

    name: str
    type: TypeEngine[Any]


def bind_processors(compiled: object) -> Mapping[str, Processor]:
    """Return what converts the values of a compiled statement's parameters, by their name, if anything has to."""
    processors: Mapping[str, Processor] = _attribute(compiled, "_bind_processors")
    return processors


def result_columns(compiled: object) -> Sequence[ResultColumn]:
    """Return the columns of a compiled statement's rows, in their order."""
    return [ResultColumn(column.keyname, column.type) for column in _attribute(compiled, "_result_columns")]


def result_processor(kind: TypeEngine[Any], dialect: Dialect, oid: int | None) -> Processor | None:
    """Return what converts asyncpg's value of a type to SQLAlchemy's, or None if they are the same.

    Args:
        kind: the type; the dialect's own form of it is used, as SQLAlchemy does when it runs a statement.
        dialect: asyncpg's.
        oid: PostgreSQL's number of the type, for types that depend on it.
    """
    processor: Processor | None = _attribute(kind, "_cached_result_processor")(dialect, oid)
    return processor


def _attribute(owner: object, name: str) -> Any:  # noqa: ANN401 - SQLAlchemy's own
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise SQLAlchemyChangedError(owner, name) from error
