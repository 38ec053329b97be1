"""Exact money: a decimal amount in an ISO 4217 currency."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from iso4217 import Currency

from service.domain.errors import AmountOutOfRange, InvalidArgument, MixedCurrencies, TooManyDecimals, UnknownCurrency

# Number of decimals by currency. Codes without a minor unit (gold, test codes) are not accepted as money. Only a new
# amount must be in one of these currencies (`Money.checked`): what is stored stays valid when ISO 4217 withdraws one.
CURRENCY_DECIMALS: Mapping[str, int] = MappingProxyType(
    {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}
)
_QUANTA = [Decimal(1).scaleb(-decimals) for decimals in range(max(CURRENCY_DECIMALS.values()) + 1)]
_CURRENCY_CODE = re.compile("[A-Z]{3}")
# Amounts stay below this. With at most four decimals they fit NUMERIC(19, 4), and any sum of an order's items is exact
# in Python's default decimal context (28 digits).
AMOUNT_LIMIT = Decimal(10) ** 15


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of zero or more in one currency."""

    currency: str
    amount: Decimal

    @classmethod
    def checked(cls, currency: str, amount: Decimal, field: str, *, may_be_withdrawn: bool = False) -> "Money":
        """Return the money; errors name `field`, the path of the value in the request.

        With `may_be_withdrawn`, the currency can be any code of three capital letters, because ISO 4217 may once have
        had it: the caller then requires that there is credit in this currency.

        Raises:
            UnknownCurrency: the code is not in `CURRENCY_DECIMALS`.
            TooManyDecimals: the amount is not a whole number of the currency's minor units.
            AmountOutOfRange: the amount is negative, or `AMOUNT_LIMIT` or more.

        >>> Money.checked("JPY", Decimal(500), "order.items[0].unit_price")
        Money(currency='JPY', amount=Decimal('500'))
        >>> Money.checked("JPY", Decimal("0.5"), "order.items[0].unit_price")
        Traceback (most recent call last):
            ...
        service.domain.errors.TooManyDecimals: ...
        """
        decimals = CURRENCY_DECIMALS.get(currency)
        if decimals is None and may_be_withdrawn and _CURRENCY_CODE.fullmatch(currency):
            decimals = len(_QUANTA) - 1
        if decimals is None:
            raise unknown_currency(field)
        if not 0 <= amount < AMOUNT_LIMIT:
            raise AmountOutOfRange.at(field, "must be zero or more and less than 10^15")
        if amount != amount.quantize(_QUANTA[decimals]):
            raise TooManyDecimals.at(field, f"must have at most {decimals} decimals for {currency}")
        return cls(currency, amount)

    def times(self, quantity: int, field: str) -> "Money":
        """Return this amount multiplied by `quantity`; raises AmountOutOfRange for `field`.

        >>> str(Money("EUR", Decimal("10.50")).times(2, "order.items[0]"))
        '21.00 EUR'
        """
        return _in_range(Money(self.currency, self.amount * quantity), field)

    def __str__(self) -> str:
        # ISO 4217 changes: a stored amount may be in a currency that it no longer has, or that had more decimals.
        decimals = max(CURRENCY_DECIMALS.get(self.currency, 0), decimal_places(self.amount))
        return f"{self.amount:.{decimals}f} {self.currency}"


def unknown_currency(field: str) -> InvalidArgument:
    """Return the error of a money whose currency ISO 4217 does not have; `field` is its path in the request."""
    return UnknownCurrency.at(f"{field}.currency_code", "must be an ISO 4217 currency code such as EUR")


def decimal_places(amount: Decimal) -> int:
    """Return the number of decimals of an amount, without zeros at the end.

    >>> decimal_places(Decimal("10.5000")), decimal_places(Decimal(100))
    (1, 0)
    """
    exponent = amount.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def total(amounts: Iterable[Money], field: str) -> Money:
    """Return the sum of one or more amounts.

    Raises:
        MixedCurrencies: the amounts have different currencies.
        AmountOutOfRange: the sum is `AMOUNT_LIMIT` or more.

    >>> str(total([Money("EUR", Decimal("0.10")), Money("EUR", Decimal("0.20"))], "order.items"))
    '0.30 EUR'
    >>> total([Money("EUR", Decimal(1)), Money("USD", Decimal(1))], "order.items")
    Traceback (most recent call last):
        ...
    service.domain.errors.MixedCurrencies: ...
    """
    amounts = list(amounts)
    currency = amounts[0].currency
    if any(money.currency != currency for money in amounts):
        raise MixedCurrencies.at(field, "must all have the same currency")
    return _in_range(Money(currency, sum((money.amount for money in amounts), Decimal(0))), field)


def _in_range(money: Money, field: str) -> Money:
    if money.amount >= AMOUNT_LIMIT:
        raise AmountOutOfRange.at(field, "must add up to less than 10^15")
    return money
