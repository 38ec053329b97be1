"""The base class of the enums in messages."""

from enum import IntEnum
from typing import TYPE_CHECKING, Self


class Enum(IntEnum):
    """An enum whose members equal the numbers in messages: `order.status == OrderStatus.PENDING`.

    `OrderStatus(order.status).name` is the name. A number that this version of the client does not know, because the
    server is newer, becomes a member too, named `UNKNOWN_` and the number.
    """

    if TYPE_CHECKING:
        # Otherwise mypy refuses to compare a member with a number in a message, which is of another type.
        def __eq__(self, other: object, /) -> bool: ...
        def __hash__(self) -> int: ...

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member
