"""What property tests share: how hard they try, and values to try."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

from service.domain.money import AMOUNT_LIMIT, CURRENCY_DECIMALS, Money

# No deadline: how long one example takes depends on who else uses the machine.
thorough = settings(deadline=None, max_examples=300)
# For state machines, whose every example is a sequence of calls.
many_calls = settings(deadline=None, max_examples=100, stateful_step_count=30)

# Clocks of servers differ, so the time of a call may lie before that of the call before.
times = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds the zone


@st.composite
def amounts(draw: st.DrawFn, *currencies: str) -> Money:
    """Return money in one of these currencies, by default any; small amounts are as likely as large ones."""
    currency = draw(st.sampled_from(currencies or sorted(CURRENCY_DECIMALS)))
    decimals = CURRENCY_DECIMALS[currency]
    digits = draw(st.integers(1, 15 + decimals))
    amount = Decimal(draw(st.integers(0, 10**digits - 1))).scaleb(-decimals)
    assert amount < AMOUNT_LIMIT
    return Money(currency, amount)
