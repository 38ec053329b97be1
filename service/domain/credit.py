"""Store credit that users can spend, in a double-entry ledger.

Credit moves between accounts, and a move makes two entries that add up to zero. A user has two accounts in each
currency: available credit, and credit held for orders. Credit comes from the system account ISSUED and goes to the
system account SPENT. System accounts have entries but no balance, because every call would have to lock the row with
the balance.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from service.domain.errors import AmountOutOfRange, InsufficientCredit
from service.domain.ids import uuid7
from service.domain.money import AMOUNT_LIMIT, Money


class Account(StrEnum):
    """The accounts that credit moves between; ISSUED and SPENT are system accounts."""

    AVAILABLE = "AVAILABLE"
    HELD = "HELD"
    ISSUED = "ISSUED"
    SPENT = "SPENT"


class EntryType(StrEnum):
    """The reason why credit moved."""

    GRANT = "GRANT"
    TRANSFER = "TRANSFER"
    HOLD = "HOLD"
    VOID = "VOID"
    POST = "POST"
    REVERSAL = "REVERSAL"


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of one account; `user_id` and `balance_after` are None for a system account."""

    id: UUID
    user_id: UUID | None
    account: Account
    currency: str
    amount: Decimal
    balance_after: Decimal | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """Entries that were made together and whose amounts add up to zero."""

    type: EntryType
    entries: tuple[Entry, ...]
    create_time: datetime
    order_id: UUID | None = None
    description: str = ""
    id: UUID = field(default_factory=uuid7)


@dataclass(eq=False, kw_only=True)
class CreditAccount:
    """A user's credit in one currency. Only `move` changes it."""

    user_id: UUID
    currency: str
    available: Decimal = Decimal(0)
    held: Decimal = Decimal(0)

    def change(self, account: Account, amount: Decimal) -> Entry:
        """Change one of the two accounts and return the entry.

        Raises:
            InsufficientCredit: the balance would be less than zero.
            AmountOutOfRange: the balance would be too large to store.
        """
        balance = (self.available if account is Account.AVAILABLE else self.held) + amount
        if balance < 0:
            raise InsufficientCredit(f"users/{self.user_id}", "the user has less credit than this call needs")
        if balance >= AMOUNT_LIMIT:
            raise AmountOutOfRange.at("amount", "must be smaller: the balance of the user would reach 10^15")
        if account is Account.AVAILABLE:
            self.available = balance
        else:
            self.held = balance
        return Entry(uuid7(), self.user_id, account, self.currency, amount, balance)


def move(
    amount: Money,
    source: tuple[CreditAccount | None, Account],
    target: tuple[CreditAccount | None, Account],
) -> tuple[Entry, Entry]:
    """Move an amount from one account to another and return the two entries.

    An account is given as a pair: the user's credit in the currency of the amount (None for a system account), and
    which account.

    Raises:
        InsufficientCredit: the source has less than the amount.
        AmountOutOfRange: the balance of the target would be too large to store.
    """
    return _change(amount.currency, -amount.amount, *source), _change(amount.currency, amount.amount, *target)


def _change(currency: str, amount: Decimal, owner: CreditAccount | None, account: Account) -> Entry:
    return owner.change(account, amount) if owner else Entry(uuid7(), None, account, currency, amount, None)
