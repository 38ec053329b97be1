"""Use cases of credit.

Every call takes its locks in one order, so that no two wait for each other (docs/architecture.md, "The order of
locks"): users by id, orders by id, notes, tags by name, and credit accounts by user and currency.

- A call that moves a user's credit has locked that user, at least against a purge, before the order and the account.
  `UnitOfWork.orders` does that when it loads an order that credit pays for.
- All accounts that a call needs are locked together, by one call of `CreditRepository.lock`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.application.ports.unit_of_work import UnitOfWork
from service.domain.credit import Account, CreditAccount, EntryType, Transaction, move
from service.domain.errors import InvalidField
from service.domain.money import CURRENCY_DECIMALS, Money, unknown_currency
from service.domain.orders import CreditState, Order, OrderHeader

_AVAILABLE, _HELD, _ISSUED, _SPENT = Account.AVAILABLE, Account.HELD, Account.ISSUED, Account.SPENT


async def grant_credit(
    uow: UnitOfWork, user_id: UUID, amount: Money, description: str, now: datetime
) -> tuple[Transaction, CreditAccount]:
    """Grant store credit to a user; raises UserNotFound, UserDeleted and AmountOutOfRange."""
    user = await uow.users.get_for_share(user_id)
    user.require_not_deleted()
    return await _grant(uow, user_id, amount, description, now)


async def grant_welcome_credit(uow: UnitOfWork, user_id: UUID, amount: Money, now: datetime) -> None:
    """Grant store credit to a user who was added in this unit of work."""
    await _grant(uow, user_id, amount, "welcome credit", now)


async def _grant(
    uow: UnitOfWork, user_id: UUID, amount: Money, description: str, now: datetime
) -> tuple[Transaction, CreditAccount]:
    (account,) = await uow.credit.lock([(user_id, amount.currency)])
    entries = move(amount, (None, _ISSUED), (account, _AVAILABLE))
    transaction = Transaction(EntryType.GRANT, entries, now, description=description)
    uow.credit.record(transaction)
    return transaction, account


async def transfer_credit(
    uow: UnitOfWork, from_user_id: UUID, to_user_id: UUID, amount: Money, description: str, now: datetime
) -> tuple[Transaction, CreditAccount, CreditAccount]:
    """Move available credit from one user to another, also in a currency that ISO 4217 has withdrawn.

    Raises:
        UnknownCurrency: ISO 4217 does not have the currency, and the giver has no credit in it.
        UserNotFound, UserDeleted: one of the users does not exist or is deleted.
        InvalidField: both ids are of the same user.
        InsufficientCredit, AmountOutOfRange: see `service.domain.credit.move`.
    """
    if from_user_id == to_user_id:
        raise InvalidField.at("to_user_id", "must differ from from_user_id")
    for user_id in sorted((from_user_id, to_user_id)):
        (await uow.users.get_for_share(user_id)).require_not_deleted()
    source, target = await uow.credit.lock([(from_user_id, amount.currency), (to_user_id, amount.currency)])
    if amount.currency not in CURRENCY_DECIMALS and not source.available:
        raise unknown_currency("amount")
    entries = move(amount, (source, _AVAILABLE), (target, _AVAILABLE))
    transaction = Transaction(EntryType.TRANSFER, entries, now, description=description)
    uow.credit.record(transaction)
    return transaction, source, target


async def hold_for_order(uow: UnitOfWork, order: Order, now: datetime) -> None:
    """Hold credit for the total of an order; raises InsufficientCredit."""
    order.hold_credit(now)
    await _move_for_orders(uow, [_Move(order, EntryType.HOLD, order.total, _AVAILABLE, _HELD)], now)


async def adjust_hold(uow: UnitOfWork, order: Order, old_total: Money, now: datetime) -> None:
    """Hold more or less credit after the total of an order has changed; raises InsufficientCredit."""
    new_total = order.total
    if order.credit_state is not CreditState.HELD:
        return
    if new_total.currency != old_total.currency:
        back = _Move(order, EntryType.VOID, old_total, _HELD, _AVAILABLE)
        await _move_for_orders(uow, [back, _Move(order, EntryType.HOLD, new_total, _AVAILABLE, _HELD)], now)
        return
    more = new_total.amount - old_total.amount
    if more > 0:
        change = _Move(order, EntryType.HOLD, Money(new_total.currency, more), _AVAILABLE, _HELD)
    else:
        change = _Move(order, EntryType.VOID, Money(new_total.currency, -more), _HELD, _AVAILABLE)
    await _move_for_orders(uow, [change], now)


async def spend_for_order(uow: UnitOfWork, order: OrderHeader, now: datetime) -> None:
    """Spend the credit that pays for a confirmed order.

    Raises:
        InsufficientCredit: the hold has expired, and the user has less credit now.
    """
    held = order.credit_state is CreditState.HELD
    if order.post_credit():
        source = _HELD if held else _AVAILABLE
        await _move_for_orders(uow, [_Move(order, EntryType.POST, order.total, source, _SPENT)], now)


async def give_back_for_orders(uow: UnitOfWork, orders: Iterable[OrderHeader], now: datetime) -> None:
    """Give back the credit that paid for orders that are cancelled or purged."""
    moves: list[_Move] = []
    for order in orders:
        match order.release_credit():
            case CreditState.VOIDED:
                moves.append(_Move(order, EntryType.VOID, order.total, _HELD, _AVAILABLE))
            case CreditState.REVERSED:
                moves.append(_Move(order, EntryType.REVERSAL, order.total, _SPENT, _AVAILABLE))
    await _move_for_orders(uow, moves, now)


async def expire_hold(uow: UnitOfWork, order: Order, now: datetime) -> bool:
    """Give back the credit of an order whose hold has expired, and return whether it has."""
    expired = order.expire_credit(now)
    if expired:
        await _move_for_orders(uow, [_Move(order, EntryType.VOID, order.total, _HELD, _AVAILABLE)], now)
    return expired


@dataclass(frozen=True, slots=True)
class _Move:
    """A move of the credit that pays for an order."""

    order: OrderHeader
    kind: EntryType
    amount: Money
    source: Account
    target: Account

    @property
    def account(self) -> tuple[UUID, str] | None:
        """The payer and the currency; None if there is nothing to move."""
        payer = self.order.credit_user_id
        return (payer, self.amount.currency) if payer and self.amount.amount else None


async def _move_for_orders(uow: UnitOfWork, moves: Iterable[_Move], now: datetime) -> None:
    """Make these moves in their order, with all accounts locked before the first of them."""
    known = [(move, account) for move in moves if (account := move.account)]
    if not known:
        return
    keys = sorted({account for _, account in known})
    accounts = dict(zip(keys, await uow.credit.lock(keys), strict=True))
    system_accounts = {_ISSUED, _SPENT}
    for each, key in known:
        source_owner = None if each.source in system_accounts else accounts[key]
        target_owner = None if each.target in system_accounts else accounts[key]
        entries = move(each.amount, (source_owner, each.source), (target_owner, each.target))
        uow.credit.record(Transaction(each.kind, entries, now, order_id=each.order.id))
