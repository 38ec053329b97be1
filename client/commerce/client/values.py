"""Plain Python values in place of messages: money, times and ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from google.type.money_pb2 import Money as MoneyMessage

Id: TypeAlias = UUID | str
"""The id of a resource or of a request: a UUID, or its text."""

_NANOS = Decimal(10) ** 9
_MAX_UNITS = 2**63 - 1
_MAX_DIGITS = 18
# Enough digits for any google.type.Money, with any decimal context of the caller.
_EXACT = Context(prec=40)
_REQUEST_IDS = UUID("6f0a1d0c-58f5-4f5e-9d5f-0a4f1f4c7a31")


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount in one currency.

    Args:
        amount: a Decimal, an int, or the text of a number. A float is refused, because it is not exact.
        currency: a code of ISO 4217, such as EUR.

    Raises:
        TypeError: the amount is a float or something else.
        ValueError: the amount is no finite number.

    >>> Money("9.90", "EUR")
    Money(amount=Decimal('9.90'), currency='EUR')
    """

    amount: Decimal
    currency: str

    def __init__(self, amount: Decimal | int | str, currency: str) -> None:
        if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
            raise TypeError(f"the amount must be a Decimal, an int or a str, not {type(amount).__name__}")
        try:
            exact = Decimal(amount)
        except InvalidOperation:
            raise ValueError(f"the amount {amount!r} is not a number") from None
        if not exact.is_finite():
            raise ValueError(f"the amount {amount!r} is not finite")
        object.__setattr__(self, "amount", exact)
        object.__setattr__(self, "currency", currency)

    @classmethod
    def from_message(cls, message: MoneyMessage) -> Money:
        """Return the money of a `google.type.Money`, without rounding."""
        exact = _EXACT.add(Decimal(message.units), _EXACT.scaleb(Decimal(message.nanos), -9))
        # Without the zeros at the end, but 100 stays 100, and not 1E+2.
        amount = exact.normalize(_EXACT) if message.nanos else Decimal(message.units)
        return cls(amount, message.currency_code)

    def to_message(self) -> MoneyMessage:
        """Return it as a `google.type.Money`.

        Raises:
            ValueError: the amount has more than nine decimals, or is too large for the message.
        """
        from google.type.money_pb2 import Money as MoneyMessage

        if self.amount.adjusted() > _MAX_DIGITS:
            raise ValueError(f"{self.amount} is too large for a google.type.Money")
        exact = _EXACT.multiply(self.amount, _NANOS)
        if exact != exact.to_integral_value():
            raise ValueError(f"{self.amount} has more than nine decimals")
        units, nanos = divmod(abs(int(exact)), int(_NANOS))
        if units > _MAX_UNITS:
            raise ValueError(f"{self.amount} is too large for a google.type.Money")
        sign = -1 if exact < 0 else 1
        return MoneyMessage(currency_code=self.currency, units=sign * units, nanos=sign * nanos)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"


def to_datetime(timestamp: Timestamp) -> datetime:
    """Return the time of a `google.protobuf.Timestamp`, in UTC, cut to microseconds."""
    return timestamp.ToDatetime(tzinfo=UTC)


def derive_request_id(*parts: object) -> str:
    """Return a `request_id` that is always the same for the same parts, and different for others.

    A process that crashed can so repeat a call safely, if it finds the same parts again: for example the name of the
    job and the number of the row. Responses are stored for 24 hours.

    Raises:
        ValueError: there are no parts.
    """
    if not parts:
        raise ValueError("name at least one part")
    # Each part with its length, so that ("a", "bc") and ("ab", "c") differ.
    text = "".join(f"{len(part)}:{part}" for part in map(str, parts))
    return str(uuid5(_REQUEST_IDS, text))
