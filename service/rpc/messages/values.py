"""Values that messages share: times, money, ids, etags."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from google.type.money_pb2 import Money as MoneyMessage

from service.application.ports.queries import Row
from service.domain.errors import AmountOutOfRange, InvalidField, NotFound
from service.domain.money import Money

# A message as what constructors take in its place: nested dicts, with which a page is built in a third of the time that
# messages made one by one take.
Fields = Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NANOS_PER_UNIT = 1_000_000_000
_NANO = Decimal(1).scaleb(-9)
_MAX_NANOS = 999_999_999
# How many missing ids a status names in full.
_MISSING_IDS = 10


def timestamp(time: datetime | int | None) -> Fields:
    """Return a time, or microseconds since 1970, as a google.protobuf.Timestamp, None as None."""
    if isinstance(time, int):
        return {"seconds": time // 1_000_000, "nanos": time % 1_000_000 * 1000}
    if time is None:
        return None
    since = time - _EPOCH
    return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}


def time_of(time: datetime | int) -> datetime:
    """Return a time, or microseconds since 1970, as a time."""
    return _EPOCH + time * _MICROSECOND if isinstance(time, int) else time


def money(currency: str, amount: Decimal) -> Fields:
    """Return an exact amount as a google.type.Money."""
    units = int(amount)
    return {"currency_code": currency, "units": units, "nanos": int((amount - units) * _NANOS_PER_UNIT)}


def parse_money(message: MoneyMessage, field: str) -> Money:
    """Return the money that a message says.

    Raises:
        AmountOutOfRange, UnknownCurrency, TooManyDecimals: for `field`, the message's path in the request.
    """
    if not -_MAX_NANOS <= message.nanos <= _MAX_NANOS or message.units * message.nanos < 0:
        raise AmountOutOfRange.at(
            f"{field}.nanos", "must be from -999999999 to 999999999 and have the same sign as units"
        )
    return Money.checked(message.currency_code, message.units + message.nanos * _NANO, field)


def parse_positive_money(message: MoneyMessage, field: str) -> Money:
    """Return the money that a message says; raises as `parse_money`, and AmountOutOfRange for zero."""
    parsed = parse_money(message, field)
    if not parsed.amount:
        raise AmountOutOfRange.at(field, "must be greater than zero")
    return parsed


def parse_interval(message: Interval, field: str) -> tuple[datetime | None, datetime | None]:
    """Return the start, which is included, and the end, which is not; None where it is open.

    Raises:
        InvalidField: a time is not one, or the end is before the start.
    """
    start = _parse_time(message.start_time, f"{field}.start_time") if message.HasField("start_time") else None
    end = _parse_time(message.end_time, f"{field}.end_time") if message.HasField("end_time") else None
    if start and end and end < start:
        raise InvalidField.at(field, "must not end before it starts")
    return start, end


def _parse_time(message: Timestamp, field: str) -> datetime:
    try:
        time = message.ToDatetime(tzinfo=UTC)
        # Stored times are whole microseconds: what is at or after a time between two of them is at or after the later.
        return time + _MICROSECOND if message.nanos % 1000 else time
    except (ValueError, OverflowError) as error:
        raise InvalidField.at(field, "must be a time between the years 1 and 9999") from error


def require_id(value: str, field: str) -> UUID:
    """Return the id of a resource named inside a request; raises InvalidField where it is empty."""
    if not value:
        raise InvalidField.at(field, "must be set")
    return UUID(value)


def in_order(ids: Sequence[str], rows: Iterable[Row], missing: type[NotFound]) -> list[Row]:
    """Return one row for each id, in the order of the ids, which are in lower case.

    Raises:
        NotFound: of the class `missing`; its metadata names every missing id by its index, as ranges, which fit into a
        status however many they are, and the first ones themselves.
    """
    # By their text: to make UUIDs of a thousand ids takes as long as to read the rows.
    by_id = {str(row.id): row for row in rows}
    found = [by_id.get(key) for key in ids]
    if None in found:
        absent = [index for index, row in enumerate(found) if row is None]
        raise missing(
            ids[absent[0]],
            {
                "missing_count": str(len(absent)),
                "missing_indexes": _ranges(absent),
                "missing_ids": ",".join(ids[index] for index in absent[:_MISSING_IDS]),
            },
        )
    return found


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ranges: 0-2,7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, ends)) for ends in ranges)
