"""Use cases of credit.

Every call takes locks in the same order, so that no deadlock occurs: users by id, then the order, then its notes, new
tags by name, and credit accounts by user and currency.
"""

from datetime import datetime
from uuid import UUID

from service.application.ports.unit_of_work import UnitOfWork
from service.domain.credit import Account, CreditAccount, EntryType, Transaction, move
from service.domain.errors import InvalidField
from service.domain.money import Money
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
    """Move available credit from one user to another.

    Raises:
        UserNotFound, UserDeleted: one of the users does not exist or is deleted.
        InvalidField: both ids are of the same user.
        InsufficientCredit, AmountOutOfRange: see `service.domain.credit.move`.
    """
    if from_user_id == to_user_id:
        raise InvalidField.at("to_user_id", "must differ from from_user_id")
    for user_id in sorted((from_user_id, to_user_id)):
        (await uow.users.get_for_share(user_id)).require_not_deleted()
    source, target = await uow.credit.lock([(from_user_id, amount.currency), (to_user_id, amount.currency)])
    entries = move(amount, (source, _AVAILABLE), (target, _AVAILABLE))
    transaction = Transaction(EntryType.TRANSFER, entries, now, description=description)
    uow.credit.record(transaction)
    return transaction, source, target


async def hold_for_order(uow: UnitOfWork, order: Order, now: datetime) -> None:
    """Hold credit for the total of an order; raises InsufficientCredit."""
    order.hold_credit(now)
    await _move_for_order(uow, order, EntryType.HOLD, order.total, now, _AVAILABLE, _HELD)


async def adjust_hold(uow: UnitOfWork, order: Order, old_total: Money, now: datetime) -> None:
    """Hold more or less credit after the total of an order has changed; raises InsufficientCredit."""
    new_total = order.total
    if order.credit_state is not CreditState.HELD or new_total == old_total:
        return
    if new_total.currency != old_total.currency:
        await _move_for_order(uow, order, EntryType.VOID, old_total, now, _HELD, _AVAILABLE)
        await _move_for_order(uow, order, EntryType.HOLD, new_total, now, _AVAILABLE, _HELD)
        return
    more = new_total.amount - old_total.amount
    if more > 0:
        amount = Money(new_total.currency, more)
        await _move_for_order(uow, order, EntryType.HOLD, amount, now, _AVAILABLE, _HELD)
    else:
        amount = Money(new_total.currency, -more)
        await _move_for_order(uow, order, EntryType.VOID, amount, now, _HELD, _AVAILABLE)


async def spend_for_order(uow: UnitOfWork, order: OrderHeader, now: datetime) -> None:
    """Spend the credit that pays for a confirmed order.

    Raises:
        InsufficientCredit: the hold has expired, and the user has less credit now.
    """
    held = order.credit_state is CreditState.HELD
    if order.post_credit():
        source = _HELD if held else _AVAILABLE
        await _move_for_order(uow, order, EntryType.POST, order.total, now, source, _SPENT)


async def give_back_for_order(uow: UnitOfWork, order: OrderHeader, now: datetime) -> None:
    """Give back the credit that paid for a cancelled order."""
    match order.release_credit():
        case CreditState.VOIDED:
            await _move_for_order(uow, order, EntryType.VOID, order.total, now, _HELD, _AVAILABLE)
        case CreditState.REVERSED:
            await _move_for_order(uow, order, EntryType.REVERSAL, order.total, now, _SPENT, _AVAILABLE)


async def expire_hold(uow: UnitOfWork, order: Order, now: datetime) -> bool:
    """Give back the credit of an order whose hold has expired, and return whether it has."""
    expired = order.expire_credit(now)
    if expired:
        await _move_for_order(uow, order, EntryType.VOID, order.total, now, _HELD, _AVAILABLE)
    return expired


async def _move_for_order(
    uow: UnitOfWork, order: OrderHeader, kind: EntryType, amount: Money, now: datetime, source: Account, target: Account
) -> None:
    if not amount.amount or order.credit_user_id is None:
        return
    (account,) = await uow.credit.lock([(order.credit_user_id, amount.currency)])
    system_accounts = {_ISSUED, _SPENT}
    source_owner = None if source in system_accounts else account
    target_owner = None if target in system_accounts else account
    entries = move(amount, (source_owner, source), (target_owner, target))
    uow.credit.record(Transaction(kind, entries, now, order_id=order.id))
