"""Conversions of the values that messages share: times, money and ids."""

from collections.abc import Collection, Iterable, Sequence
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
from service.rpc.status import ResponseTooLarge

# The fields of a message as nested dicts. Constructors accept them instead of nested messages, and building a page from
# them takes a third of the time of building each message.
Fields = Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NANOS_PER_UNIT = 1_000_000_000
_NANO = Decimal(1).scaleb(-9)
_MAX_NANOS = 999_999_999
# The largest amount of a google.type.Money. One amount is always smaller (`AMOUNT_LIMIT`), but not a sum of many.
_MAX_UNITS = 2**63 - 1
_MAX_MONEY = _MAX_UNITS + _MAX_NANOS * _NANO
# The maximum number of missing ids that a status lists in full.
_MAX_MISSING_IDS = 10
# How many bytes of a page are built in one turn of the event loop.
_BUILT_TOGETHER = 64 * 1024
# How many times its size the `row_bytes` of a row without an encoded message can be.
MAX_ESTIMATE = 4


def timestamp(time: datetime | int | None) -> Fields:
    """Return a time, or microseconds since 1970, as a google.protobuf.Timestamp; None for None."""
    if isinstance(time, int):
        return {"seconds": time // 1_000_000, "nanos": time % 1_000_000 * 1000}
    if time is None:
        return None
    since = time - _EPOCH
    return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}


def time_of(time: datetime | int) -> datetime:
    """Return the datetime for a time that is given as a datetime or as microseconds since 1970."""
    return _EPOCH + time * _MICROSECOND if isinstance(time, int) else time


def money(currency: str, amount: Decimal) -> Fields:
    """Return an amount as a google.type.Money, without rounding."""
    units = int(amount)
    return {"currency_code": currency, "units": units, "nanos": int((amount - units) * _NANOS_PER_UNIT)}


def sum_of_money(currency: str, amount: Decimal) -> Fields:
    """Return a sum of amounts as a google.type.Money; the largest one for a sum that is larger."""
    if amount > _MAX_MONEY:
        return {"currency_code": currency, "units": _MAX_UNITS, "nanos": _MAX_NANOS}
    return money(currency, amount)


def parse_money(message: MoneyMessage, field: str, *, may_be_withdrawn: bool = False) -> Money:
    """Return the money in a message; `may_be_withdrawn` as for `Money.checked`.

    Raises:
        AmountOutOfRange, UnknownCurrency, TooManyDecimals: name `field`, the path of the message in the request.
    """
    if not -_MAX_NANOS <= message.nanos <= _MAX_NANOS or message.units * message.nanos < 0:
        raise AmountOutOfRange.at(
            f"{field}.nanos", "must be from -999999999 to 999999999 and have the same sign as units"
        )
    amount = message.units + message.nanos * _NANO
    return Money.checked(message.currency_code, amount, field, may_be_withdrawn=may_be_withdrawn)


def parse_positive_money(message: MoneyMessage, field: str, *, may_be_withdrawn: bool = False) -> Money:
    """Return the money in a message, as `parse_money` does; also raises AmountOutOfRange for zero."""
    parsed = parse_money(message, field, may_be_withdrawn=may_be_withdrawn)
    if not parsed.amount:
        raise AmountOutOfRange.at(field, "must be greater than zero")
    return parsed


def parse_interval(message: Interval, field: str) -> tuple[datetime | None, datetime | None]:
    """Return the inclusive start and the exclusive end of an interval; None means that it is open on that side.

    Raises:
        InvalidField: a time is out of range, or the end is before the start.
    """
    start = _parse_time(message.start_time, f"{field}.start_time") if message.HasField("start_time") else None
    end = _parse_time(message.end_time, f"{field}.end_time") if message.HasField("end_time") else None
    if start and end and end < start:
        raise InvalidField.at(field, "must not end before it starts")
    return start, end


def _parse_time(message: Timestamp, field: str) -> datetime:
    try:
        time = message.ToDatetime(tzinfo=UTC)
        # Stored times are whole microseconds, so a bound between two of them selects the same rows as the later one.
        return time + _MICROSECOND if message.nanos % 1000 else time
    except (ValueError, OverflowError) as error:
        raise InvalidField.at(field, "must be a time from year 1 to year 9999") from error


def require_id(value: str, field: str) -> UUID:
    """Return the id of a resource inside a request; raises InvalidField if it is empty."""
    if not value:
        raise InvalidField.at(field, "must be set")
    return UUID(value)


def batch_in_order(
    ids: Sequence[str], rows: Collection[Row], missing: type[NotFound], max_response_bytes: int | None
) -> list[Row]:
    """Return the row for each id, in the order of the ids, which must be in lower case and may be repeated.

    Nothing is built for a response that is too large. The rows were read with `MAX_ESTIMATE` times its maximum size, or
    with no limit if they fit in any case.

    Raises:
        ResponseTooLarge: the messages exceed the limit.
        NotFound: ids have no row; the error has the class `missing`. Its metadata has the indexes of all missing ids as
            ranges, so that the status stays small, and the first missing ids in full.
    """
    # Before ids are missed: further rows may not have been read.
    if max_response_bytes is not None:
        _require_fitting(rows, max_response_bytes)
    # Ids are compared as text, because parsing a thousand ids to UUIDs takes as long as reading the rows.
    by_id = {str(row.id): row for row in rows}
    found: list[Any] = [by_id.get(key) for key in ids]
    if None in found:
        absent = [index for index, row in enumerate(found) if row is None]
        raise missing(
            ids[absent[0]],
            {
                "missing_count": str(len(absent)),
                "missing_indexes": _ranges(absent),
                "missing_ids": ",".join(ids[index] for index in absent[:_MAX_MISSING_IDS]),
            },
        )
    if max_response_bytes is not None and len(found) > len(rows):
        _require_fitting(found, max_response_bytes)
    return found


def _require_fitting(rows: Iterable[Row], max_response_bytes: int) -> None:
    least = sum(row.row_bytes if row.message is not None else row.row_bytes // MAX_ESTIMATE for row in rows)
    if least > max_response_bytes:
        raise ResponseTooLarge


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ranges, for example `0-2,7`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def rows_in_a_turn(rows: Sequence[Row]) -> int:
    """Return the messages of how many rows of a page may be built in one turn of the event loop."""
    size = sum(row.row_bytes for row in rows)
    return max(1, len(rows) if size <= _BUILT_TOGETHER else len(rows) * _BUILT_TOGETHER // size)
