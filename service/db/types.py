"""Column types that SQLAlchemy does not have."""

from collections.abc import Callable
from enum import StrEnum

from sqlalchemy import Dialect, Text, TypeDecorator
from sqlalchemy.types import UserDefinedType


class EnumText(TypeDecorator[StrEnum]):
    """A column that is TEXT in the database and a member of a StrEnum in Python."""

    impl = Text
    cache_ok = True

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: StrEnum | None, _dialect: Dialect) -> str | None:
        """Return the value of the member."""
        return None if value is None else str(value)

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[str | None], StrEnum | None]:
        """Return a function that converts values to members. It looks them up in a dict, to be fast for every row."""
        members: dict[str | None, StrEnum | None] = {None: None, **{member.value: member for member in self.enum}}
        return members.__getitem__


class Xid8(UserDefinedType[int]):
    """A 64-bit transaction id of PostgreSQL."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in DDL."""
        return "xid8"
