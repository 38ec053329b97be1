"""Settings and strategies that property tests share."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

from service.domain.money import AMOUNT_LIMIT, CURRENCY_DECIMALS, Money

# No deadline: the time of one example depends on the load of the machine.
thorough = settings(deadline=None, max_examples=300)
# For state machines, where each example is a sequence of calls.
many_calls = settings(deadline=None, max_examples=100, stateful_step_count=30)

# The clocks of servers differ, so a call may have an earlier time than the call before it.
times = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds the zone


@st.composite
def amounts(draw: st.DrawFn, *currencies: str) -> Money:
    """Return money in one of these currencies, by default any; amounts of each number of digits are equally likely."""
    currency = draw(st.sampled_from(currencies or sorted(CURRENCY_DECIMALS)))
    decimals = CURRENCY_DECIMALS[currency]
    digits = draw(st.integers(1, 15 + decimals))
    amount = Decimal(draw(st.integers(0, 10**digits - 1))).scaleb(-decimals)
    assert amount < AMOUNT_LIMIT
    return Money(currency, amount)
