from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.credit import Account, CreditAccount, Entry, EntryType, Transaction, move
from service.domain.errors import AmountOutOfRange, InsufficientCredit
from service.domain.money import AMOUNT_LIMIT, Money
from tests.support.properties import amounts, thorough

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ADA, BOB = UUID("01890000-0000-7000-8000-000000000001"), UUID("01890000-0000-7000-8000-000000000002")
AVAILABLE, HELD, ISSUED, SPENT = Account.AVAILABLE, Account.HELD, Account.ISSUED, Account.SPENT
LARGEST = AMOUNT_LIMIT - Decimal("0.01")


def credit(user_id: UUID = ADA, available: object = 0, held: object = 0) -> CreditAccount:
    return CreditAccount(user_id=user_id, currency="EUR", available=Decimal(str(available)), held=Decimal(str(held)))


def eur(amount: object) -> Money:
    return Money("EUR", Decimal(str(amount)))


def balances(account: CreditAccount) -> tuple[object, object]:
    return account.available, account.held


def values(entry: Entry) -> tuple[object, ...]:
    return entry.user_id, entry.account, entry.currency, entry.amount, entry.balance_after


def test_the_names_of_accounts_and_types_are_those_of_the_table() -> None:
    assert [*Account] == ["AVAILABLE", "HELD", "ISSUED", "SPENT"]
    assert [*EntryType] == ["GRANT", "TRANSFER", "HOLD", "VOID", "POST", "REVERSAL"]


def test_a_user_begins_without_credit() -> None:
    assert balances(CreditAccount(user_id=ADA, currency="EUR")) == (0, 0)


def test_a_grant_comes_from_the_system() -> None:
    ada = credit(available=1)
    issued, granted = move(eur(20), (None, ISSUED), (ada, AVAILABLE))
    assert values(issued) == (None, ISSUED, "EUR", -20, None)
    assert values(granted) == (ADA, AVAILABLE, "EUR", 20, 21)
    assert balances(ada) == (21, 0)
    assert issued.id != granted.id
    assert {issued.id.version, granted.id.version} == {7}


def test_held_credit_is_spent() -> None:
    ada = credit(available=5, held=20)
    held, spent = move(eur("7.50"), (ada, HELD), (None, SPENT))
    assert values(held) == (ADA, HELD, "EUR", Decimal("-7.50"), Decimal("12.50"))
    assert values(spent) == (None, SPENT, "EUR", Decimal("7.50"), None)
    assert balances(ada) == (5, Decimal("12.50"))


def test_a_hold_moves_credit_between_the_accounts_of_a_user() -> None:
    ada = credit(available=20, held=1)
    entries = move(eur(20), (ada, AVAILABLE), (ada, HELD))
    assert [values(entry) for entry in entries] == [(ADA, AVAILABLE, "EUR", -20, 0), (ADA, HELD, "EUR", 20, 21)]
    assert balances(ada) == (0, 21)


def test_a_transfer_moves_credit_between_users() -> None:
    ada, bob = credit(available=20), credit(BOB, available=1)
    move(eur(20), (ada, AVAILABLE), (bob, AVAILABLE))
    assert (balances(ada), balances(bob)) == ((0, 0), (21, 0))


@pytest.mark.parametrize("account", [AVAILABLE, HELD])
def test_credit_that_a_user_does_not_have_cannot_be_moved(account: Account) -> None:
    # The other account has enough.
    ada = credit(available=20, held=100) if account is AVAILABLE else credit(available=100, held=20)
    before = balances(ada)
    with pytest.raises(InsufficientCredit) as refused:
        ada.change(account, Decimal("-20.01"))
    assert refused.value.subject == f"users/{ADA}"
    assert "less credit" in refused.value.message
    assert balances(ada) == before


@pytest.mark.parametrize("account", [AVAILABLE, HELD])
def test_a_balance_stays_below_the_limit(account: Account) -> None:
    ada = credit(available=LARGEST, held=LARGEST)
    with pytest.raises(AmountOutOfRange) as refused:
        ada.change(account, Decimal("0.01"))
    assert [violation.field for violation in refused.value.violations] == ["amount"]
    assert "10^15" in refused.value.message
    assert balances(ada) == (LARGEST, LARGEST)
    assert credit(held=1).change(account, LARGEST - 1).amount == LARGEST - 1


@thorough
@given(amounts("EUR"), amounts("EUR"), amounts("EUR"), st.sampled_from([(AVAILABLE, HELD), (HELD, AVAILABLE)]))
def test_a_move_keeps_the_sum_and_tells_the_balances(
    available: Money, held: Money, moved: Money, accounts: tuple[Account, Account]
) -> None:
    ada = credit(available=available.amount, held=held.amount)
    source, target = accounts
    try:
        entries = move(moved, (ada, source), (ada, target))
    except (InsufficientCredit, AmountOutOfRange):
        return
    assert sum(entry.amount for entry in entries) == 0
    assert [entry.amount for entry in entries] == [-moved.amount, moved.amount]
    after = {entry.account: entry.balance_after for entry in entries}
    assert balances(ada) == (after[AVAILABLE], after[HELD])
    assert ada.available + ada.held == available.amount + held.amount
    assert min(ada.available, ada.held) >= 0


def test_a_transaction_has_an_id_and_neither_order_nor_description_unless_given() -> None:
    one, two = (Transaction(EntryType.GRANT, (), NOW) for _ in range(2))
    assert (one.order_id, one.description) == (None, "")
    assert one.id.version == 7
    assert one.id != two.id
