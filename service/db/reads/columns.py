"""The columns of rows that have no encoded message (`service.db.writes.encoded_messages`).

Times and amounts are read as integers.

Messages have whole numbers of both. A datetime takes the driver much longer than an integer, and so does it to make two
whole numbers of a datetime, of a decimal, or of digits cut out of a text. (CPU for BatchGetUsers: 0.90 of that with
datetimes; for ListOrders 0.83 of that with datetimes and texts.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Label,
    Text,
    TypeDecorator,
    case,
    cast,
    extract,
    func,
    literal_column,
    select,
    type_coerce,
)

from service.db.tables import user_profiles, users


class _WholeNumber(TypeDecorator[int]):
    """A number as text, larger than a bigint if need be; the driver would make it a decimal."""

    impl = Text
    cache_ok = True

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[str | None], int | None]:
        """Return what gives the number."""
        return lambda value: None if value is None else int(value)


def in_microseconds(time: Column[Any]) -> Label[int]:
    """Return a time in microseconds since 1970, under its name."""
    return cast(extract("epoch", time) * literal_column("1000000"), BigInteger).label(time.name)


def in_ten_thousandths(amount: Column[Any]) -> Label[int]:
    """Return an amount, which has four decimals, in ten-thousandths, under its name."""
    return type_coerce(cast(ten_thousandths(amount), Text), _WholeNumber).label(amount.name)


def ten_thousandths(amount: Column[Any]) -> ColumnElement[Any]:
    """Return an amount in ten-thousandths, as JSON is to have it: as many digits as it takes, and no decimals."""
    return func.trunc(amount * literal_column("10000"))


def unless_encoded(message: Column[Any], value: ColumnElement[Any], name: str) -> Label[Any]:
    """Return a value under a name, where a row is not kept as a message; else null."""
    return case((message.is_(None), value)).label(name)


def _of_profile(column: Column[Any]) -> ColumnElement[Any]:
    return select(column).where(user_profiles.c.user_id == users.c.id).scalar_subquery()


_USER_VALUES: Mapping[str, ColumnElement[Any]] = {
    **{name: users.c[name] for name in ("email", "full_name", "superuser", "version")},
    **{name: in_microseconds(users.c[name]) for name in ("update_time", "delete_time", "purge_time")},
    **{name: _of_profile(user_profiles.c[name]) for name in ("bio", "avatar_url")},
}
# What of a user is read: nobody is told what a deleted one was before. What `message` says is read where that is null
# only, but for what positions in lists are made of, and whether one may sign in.
USER_COLUMNS: Sequence[ColumnElement[Any]] = (
    users.c.id,
    users.c.username,
    users.c.state,
    in_microseconds(users.c.create_time),
    users.c.message,
    *(unless_encoded(users.c.message, value, name) for name, value in _USER_VALUES.items()),
)
