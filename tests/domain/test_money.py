"""Money in the domain, and its conversion to and from `google.type.Money`."""

from decimal import Decimal

import pytest
from google.type.money_pb2 import Money as MoneyMessage
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import AmountOutOfRange, DomainError, InvalidArgument, TooManyDecimals, UnknownCurrency
from service.domain.errors import MixedCurrencies as Mixed
from service.domain.money import AMOUNT_LIMIT, CURRENCY_DECIMALS, Money, total
from service.rpc.messages.values import money, parse_money
from tests.support.properties import amounts, thorough

FIELD = "order.items[0].unit_price"


def message_of(value: Money) -> MoneyMessage:
    return MoneyMessage(**money(value.currency, value.amount))


def eur(amount: str) -> Money:
    return Money("EUR", Decimal(amount))


@pytest.mark.parametrize(
    ("currency", "decimals"), [("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("CLP", 0), ("UYW", 4)]
)
def test_a_currency_takes_exactly_its_decimals(currency: str, decimals: int) -> None:
    finest = Decimal(1).scaleb(-decimals)
    assert Money.checked(currency, finest, FIELD).amount == finest
    with pytest.raises(TooManyDecimals) as refused:
        Money.checked(currency, finest / 10, FIELD)
    assert [(violation.field, violation.rule) for violation in refused.value.violations] == [
        (FIELD, "TOO_MANY_DECIMALS")
    ]
    assert f"at most {decimals} decimals for {currency}" in refused.value.message


def test_zeros_behind_the_last_decimal_do_not_count() -> None:
    assert Money.checked("JPY", Decimal("12.000000000"), FIELD) == Money("JPY", Decimal(12))


@pytest.mark.parametrize("currency", ["XAU", "XAG", "XDR", "XTS", "XXX", "ZZZ", "DEM", "eur", "EURO", "EU", ""])
def test_gold_test_codes_and_other_non_currencies_are_unknown(currency: str) -> None:
    with pytest.raises(UnknownCurrency) as refused:
        Money.checked(currency, Decimal(1), FIELD)
    assert refused.value.violations[0].field == f"{FIELD}.currency_code"


def test_an_amount_may_be_zero() -> None:
    assert Money.checked("EUR", Decimal(0), FIELD) == eur("0")


def test_an_amount_ends_one_cent_below_the_limit() -> None:
    assert Money.checked("EUR", AMOUNT_LIMIT - Decimal("0.01"), FIELD) == eur("999999999999999.99")
    with pytest.raises(AmountOutOfRange):
        Money.checked("EUR", AMOUNT_LIMIT, FIELD)


def test_an_amount_below_zero_is_out_of_range() -> None:
    with pytest.raises(AmountOutOfRange) as refused:
        Money.checked("EUR", Decimal("-0.01"), FIELD)
    assert refused.value.violations[0].field == FIELD


def test_a_tenth_three_times_is_three_tenths() -> None:
    assert eur("0.10").times(3, FIELD) == eur("0.30") == total([eur("0.10")] * 3, FIELD)


def test_the_largest_order_is_summed_to_the_last_cent() -> None:
    subtotal = eur("1999999999999.99")
    assert total([subtotal] * 500, FIELD) == eur("999999999999995.00")
    assert eur("99999999999.99").times(10_000, FIELD) == eur("999999999999900.00")


def test_a_product_may_not_reach_the_limit() -> None:
    assert eur("500000000000000").times(1, FIELD) == eur("500000000000000")
    with pytest.raises(AmountOutOfRange) as refused:
        eur("500000000000000").times(2, FIELD)
    assert refused.value.violations[0].field == FIELD


def test_a_sum_may_not_reach_the_limit() -> None:
    assert total([eur("999999999999999.98"), eur("0.01")], FIELD) == eur("999999999999999.99")
    with pytest.raises(AmountOutOfRange) as refused:
        total([eur("999999999999999.99"), eur("0.01")], FIELD)
    assert refused.value.violations[0].field == FIELD


def test_two_currencies_do_not_add() -> None:
    with pytest.raises(Mixed) as refused:
        total([eur("1"), Money("USD", Decimal(1))], FIELD)
    assert refused.value.violations[0].field == FIELD


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Money("EUR", Decimal("10.5")), "10.50 EUR"),
        (Money("EUR", Decimal("0.010000000")), "0.01 EUR"),
        (Money("JPY", Decimal("1200.000000000")), "1200 JPY"),
        (Money("KWD", Decimal(1)), "1.000 KWD"),
        (Money("CLF", Decimal("0.0001")), "0.0001 CLF"),
        (Money("EUR", Decimal("999999999999999.99")), "999999999999999.99 EUR"),
        (Money("EUR", Decimal("1E+3")), "1000.00 EUR"),
        # Withdrawn from ISO 4217, and with more decimals than the currency has now.
        (Money("BGN", Decimal("60.5000")), "60.5 BGN"),
        (Money("BGN", Decimal("60.0000")), "60 BGN"),
        (Money("JPY", Decimal("1.5000")), "1.5 JPY"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_money_reads_with_the_decimals_of_its_currency(value: Money, text: str) -> None:
    assert str(value) == text


@thorough
@given(amounts())
def test_every_amount_survives_the_way_to_a_message_and_back(value: Money) -> None:
    message = message_of(value)
    assert parse_money(message, FIELD) == value
    assert 0 <= message.nanos <= 999_999_999
    assert message_of(parse_money(message, FIELD)) == message


@pytest.mark.parametrize("currency", sorted(CURRENCY_DECIMALS))
def test_the_ends_of_every_currency_survive_the_way_to_a_message_and_back(currency: str) -> None:
    finest = Decimal(1).scaleb(-CURRENCY_DECIMALS[currency])
    for amount in (Decimal(0), finest, AMOUNT_LIMIT - finest):
        value = Money(currency, amount)
        assert parse_money(message_of(value), FIELD) == value


@thorough
@given(
    # Few random messages would be valid money, so most examples are close to it.
    units=st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
    nanos=st.integers(-210, 210).map(lambda hundredths: hundredths * 10_000_000) | st.integers(-(2**31), 2**31 - 1),
    currency=st.sampled_from([*CURRENCY_DECIMALS, "XAU", "XXX", ""]),
)
def test_any_message_is_exact_money_or_refused(units: int, nanos: int, currency: str) -> None:
    message = MoneyMessage(currency_code=currency, units=units, nanos=nanos)
    try:
        value = parse_money(message, FIELD)
    except InvalidArgument as refused:
        assert all(violation.field.startswith(FIELD) for violation in refused.violations)  # noqa: PT017 - either may come
    else:
        assert message_of(value) == message


@pytest.mark.parametrize(
    ("units", "nanos"),
    [
        (1, 1_000_000_000),
        (0, 1_000_000_000),
        (-1, -1_000_000_000),
        (1, -10_000_000),
        (-1, 10_000_000),
        (2**63 - 1, -1),
        (-(2**63), 1),
    ],
)
def test_nanos_beyond_one_unit_or_of_the_other_sign_are_refused(units: int, nanos: int) -> None:
    with pytest.raises(AmountOutOfRange) as refused:
        parse_money(MoneyMessage(currency_code="EUR", units=units, nanos=nanos), FIELD)
    assert refused.value.violations[0].field == f"{FIELD}.nanos"


@pytest.mark.parametrize(
    ("units", "nanos"), [(-1, 0), (0, -10_000_000), (-1, -10_000_000), (10**15, 0), (2**63 - 1, 0)]
)
def test_a_message_of_less_than_nothing_or_too_much_is_refused(units: int, nanos: int) -> None:
    with pytest.raises(AmountOutOfRange) as refused:
        parse_money(MoneyMessage(currency_code="EUR", units=units, nanos=nanos), FIELD)
    assert refused.value.violations[0].field == FIELD


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (MoneyMessage(currency_code="EUR", nanos=1), TooManyDecimals),
        (MoneyMessage(currency_code="JPY", units=1, nanos=500_000_000), TooManyDecimals),
        (MoneyMessage(units=1), UnknownCurrency),
        (MoneyMessage(currency_code="XAU", units=1), UnknownCurrency),
    ],
    ids=["a nano-euro", "half a yen", "no currency", "gold"],
)
def test_a_message_is_checked_like_any_money(message: MoneyMessage, error: type[DomainError]) -> None:
    with pytest.raises(error):
        parse_money(message, FIELD)


@pytest.mark.parametrize("currency", ["BGN", "DEM", "XAU"])
def test_credit_can_be_in_a_currency_that_was_withdrawn(currency: str) -> None:
    # With as many decimals as the finest currency has.
    amount = Decimal("1.2345")
    assert Money.checked(currency, amount, FIELD, may_be_withdrawn=True) == Money(currency, amount)
    with pytest.raises(TooManyDecimals, match="at most 4 decimals"):
        Money.checked(currency, Decimal("1.23456"), FIELD, may_be_withdrawn=True)


@pytest.mark.parametrize("currency", ["", "eur", "EU", "EURO", "XEURX", "E1R"])
def test_what_is_no_code_was_never_a_currency(currency: str) -> None:
    with pytest.raises(UnknownCurrency):
        Money.checked(currency, Decimal(1), FIELD, may_be_withdrawn=True)


def test_a_currency_that_still_exists_keeps_its_decimals() -> None:
    with pytest.raises(TooManyDecimals):
        Money.checked("JPY", Decimal("0.5"), FIELD, may_be_withdrawn=True)
