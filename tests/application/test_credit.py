"""What moves credit, and the entries that each move leaves in the ledger."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import pytest

from service.application.credit import expire_hold, give_back_for_orders, grant_credit, transfer_credit
from service.application.orders import cancel_order, confirm_order, create_order, update_order
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import change_user, create_user
from service.db.database import Database
from service.domain.credit import EntryType
from service.domain.errors import (
    AmountOutOfRange,
    DomainError,
    InsufficientCredit,
    InvalidField,
    UserDeleted,
    UserNotFound,
)
from service.domain.money import AMOUNT_LIMIT, Money
from service.domain.orders import CreditState, ItemFields, Order, OrderFields
from service.domain.users import User
from service.passwords import Argon2Passwords
from tests.support.databases import driver_connection
from tests.support.passwords import PASSWORD
from tests.support.stores import NOW, add_user, some_user, unit_of_work

LATER = NOW + timedelta(days=1)
# One entry: type, account, amount and balance afterwards.
Entry = tuple[str, str, int, int | None]


@pytest.fixture
async def ledger(shared_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with driver_connection(shared_database_url) as connection:
        yield connection


def money(amount: int, currency: str = "EUR") -> Money:
    return Money(currency, Decimal(amount))


def costing(amount: int, currency: str = "EUR") -> OrderFields:
    return {"items": [ItemFields("anvil", "Anvil", 1, money(amount, currency))]}


async def user_with(store: Database, *amounts: Money) -> User:
    user = await add_user(store)
    async with unit_of_work(store) as uow:
        for amount in amounts:
            await grant_credit(uow, user.id, amount, "", NOW)
        await uow.commit(b"")
    return user


async def paid_order(store: Database, user: User, amount: int, currency: str = "EUR") -> Order:
    async with unit_of_work(store) as uow:
        order = await create_order(uow, user.id, costing(amount, currency), NOW, pay_with_credit=True)
        await uow.commit(b"")
    return order


async def balances(store: Database, user: User) -> dict[str, tuple[int, int]]:
    """Return the available and the held credit of a user by currency."""
    rows = await store.credit_queries.balances(user.id)
    assert rows is not None
    return {row.currency: (int(row.available), int(row.held)) for row in rows}


async def entries(ledger: asyncpg.Connection, about: User | Order) -> list[Entry]:
    """Return the entries of an order, or of a user without an order, oldest first; also those of system accounts."""
    column = "user_id" if isinstance(about, User) else "order_id"
    transactions = f"SELECT transaction_id FROM credit_entries WHERE {column} = $1"
    if isinstance(about, User):
        transactions += " AND order_id IS NULL"
    rows = await ledger.fetch(
        f"SELECT * FROM credit_entries WHERE transaction_id IN ({transactions}) ORDER BY position", about.id
    )
    return [
        (
            row["type"],
            row["account"],
            int(row["amount"]),
            None if row["balance_after"] is None else int(row["balance_after"]),
        )
        for row in rows
    ]


async def test_a_grant_adds_to_what_a_user_can_spend(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(1))
    async with unit_of_work(store) as uow:
        transaction, account = await grant_credit(uow, user.id, money(20), "sorry", LATER)
        await uow.commit(b"")
    assert (transaction.type, transaction.description, transaction.create_time) == (EntryType.GRANT, "sorry", LATER)
    assert (account.user_id, account.currency) == (user.id, "EUR")
    assert [account.available, account.held] == [21, 0]
    assert await balances(store, user) == {"EUR": (21, 0)}
    assert (await entries(ledger, user))[2:] == [("GRANT", "ISSUED", -20, None), ("GRANT", "AVAILABLE", 20, 21)]
    stored = await ledger.fetch("SELECT * FROM credit_entries WHERE transaction_id = $1", transaction.id)
    assert {(row["description"], row["create_time"], row["actor"]) for row in stored} == {("sorry", LATER, "tests")}


async def test_a_new_user_can_be_welcomed_with_credit(
    store: Database, passwords: Argon2Passwords, ledger: asyncpg.Connection
) -> None:
    async with unit_of_work(store) as uow:
        user = await create_user(uow, passwords, some_user(), PASSWORD, LATER, welcome_credit=money(5, "USD"))
        await uow.commit(b"")
    assert await balances(store, user) == {"USD": (5, 0)}
    assert await entries(ledger, user) == [("GRANT", "ISSUED", -5, None), ("GRANT", "AVAILABLE", 5, 5)]
    rows = await ledger.fetch("SELECT * FROM credit_entries WHERE user_id = $1", user.id)
    assert [(row["description"], row["create_time"]) for row in rows] == [("welcome credit", LATER)]


async def test_a_transfer_takes_from_one_user_and_gives_to_another(store: Database, ledger: asyncpg.Connection) -> None:
    giver, taker = await user_with(store, money(20)), await user_with(store, money(1))
    async with unit_of_work(store) as uow:
        transaction, source, target = await transfer_credit(uow, giver.id, taker.id, money(15), "thanks", LATER)
        await uow.commit(b"")
    assert (transaction.type, transaction.description, transaction.create_time) == (EntryType.TRANSFER, "thanks", LATER)
    assert transaction.order_id is None
    assert [source.user_id, target.user_id] == [giver.id, taker.id]
    assert [source.available, target.available] == [5, 16]
    assert (await balances(store, giver), await balances(store, taker)) == ({"EUR": (5, 0)}, {"EUR": (16, 0)})
    assert (await entries(ledger, giver))[2:] == [("TRANSFER", "AVAILABLE", -15, 5), ("TRANSFER", "AVAILABLE", 15, 16)]


async def test_credit_cannot_be_transferred_to_its_owner(store: Database) -> None:
    user = await user_with(store, money(20))
    async with unit_of_work(store) as uow:
        with pytest.raises(InvalidField, match="must differ from from_user_id") as refused:
            await transfer_credit(uow, user.id, user.id, money(1), "", NOW)
    assert [violation.field for violation in refused.value.violations] == ["to_user_id"]


async def gone(store: Database, how: str) -> UUID:
    """Return the id of a user who has 20 EUR and is deleted, or of a user who does not exist."""
    if how == "missing":
        return uuid4()
    user = await user_with(store, money(20))
    async with unit_of_work(store) as uow:
        await change_user(uow, user.id, "", lambda user: user.delete(NOW))
        await uow.commit(b"")
    return user.id


CALLS: Mapping[str, Callable[[UnitOfWork, UUID, UUID], Awaitable[object]]] = {
    "grant": lambda uow, user_id, _other: grant_credit(uow, user_id, money(1), "", NOW),
    "give": lambda uow, user_id, other: transfer_credit(uow, user_id, other, money(1), "", NOW),
    "take": lambda uow, user_id, other: transfer_credit(uow, other, user_id, money(1), "", NOW),
}


@pytest.mark.parametrize(("how", "error"), [("missing", UserNotFound), ("deleted", UserDeleted)])
@pytest.mark.parametrize("call", CALLS)
async def test_credit_moves_only_between_users_who_are_there(
    store: Database, call: str, how: str, error: type[DomainError]
) -> None:
    other, user_id = await user_with(store, money(20)), await gone(store, how)
    async with unit_of_work(store) as uow:
        with pytest.raises(error):
            await CALLS[call](uow, user_id, other.id)
    assert await balances(store, other) == {"EUR": (20, 0)}


async def test_a_user_cannot_give_or_hold_more_than_is_available(store: Database) -> None:
    user, other = await user_with(store, money(20)), await add_user(store)
    await paid_order(store, user, 15)
    async with unit_of_work(store) as uow:
        with pytest.raises(InsufficientCredit):
            await transfer_credit(uow, user.id, other.id, money(6), "", NOW)
    async with unit_of_work(store) as uow:
        with pytest.raises(InsufficientCredit):
            await create_order(uow, user.id, costing(6), NOW, pay_with_credit=True)
    assert await balances(store, user) == {"EUR": (5, 15)}


async def test_a_balance_stays_below_the_limit(store: Database) -> None:
    user = await user_with(store, Money("EUR", AMOUNT_LIMIT - 1))
    async with unit_of_work(store) as uow:
        with pytest.raises(AmountOutOfRange):
            await grant_credit(uow, user.id, money(1), "", NOW)


async def test_credit_is_held_for_an_order(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    assert (order.credit_state, order.credit_user_id) == (CreditState.HELD, user.id)
    assert order.credit_expire_time == NOW + timedelta(days=7)
    assert await balances(store, user) == {"EUR": (5, 15)}
    assert await entries(ledger, order) == [("HOLD", "AVAILABLE", -15, 5), ("HOLD", "HELD", 15, 15)]


CHANGES: tuple[Callable[[UnitOfWork, Order], Awaitable[object]], ...] = (
    lambda uow, order: update_order(uow, order.id, "", costing(16), NOW),
    lambda uow, order: confirm_order(uow, order.id, "", NOW),
    lambda uow, order: cancel_order(uow, order.id, "", "no", NOW),
)


@pytest.mark.parametrize("change", CHANGES, ids=["update", "confirm", "cancel"])
async def test_an_order_that_is_not_paid_with_credit_moves_none(
    store: Database, ledger: asyncpg.Connection, change: Callable[[UnitOfWork, Order], Awaitable[object]]
) -> None:
    user = await user_with(store, money(20))
    async with unit_of_work(store) as uow:
        order = await create_order(uow, user.id, costing(15), NOW)
        await uow.flush()
        await change(uow, order)
        await uow.commit(b"")
    assert await entries(ledger, order) == []
    assert await balances(store, user) == {"EUR": (20, 0)}


@pytest.mark.parametrize(
    ("new", "moved", "left"),
    [
        (money(16), [("HOLD", "AVAILABLE", -1, 4), ("HOLD", "HELD", 1, 16)], {"EUR": (4, 16), "USD": (9, 0)}),
        (money(18), [("HOLD", "AVAILABLE", -3, 2), ("HOLD", "HELD", 3, 18)], {"EUR": (2, 18), "USD": (9, 0)}),
        (money(14), [("VOID", "HELD", -1, 14), ("VOID", "AVAILABLE", 1, 6)], {"EUR": (6, 14), "USD": (9, 0)}),
        (money(0), [("VOID", "HELD", -15, 0), ("VOID", "AVAILABLE", 15, 20)], {"EUR": (20, 0), "USD": (9, 0)}),
        (money(15), [], {"EUR": (5, 15), "USD": (9, 0)}),
        (
            money(9, "USD"),
            [
                *(("VOID", "HELD", -15, 0), ("VOID", "AVAILABLE", 15, 20)),
                *(("HOLD", "AVAILABLE", -9, 0), ("HOLD", "HELD", 9, 9)),
            ],
            {"EUR": (20, 0), "USD": (0, 9)},
        ),
        # The same amount of another currency is another total.
        (
            money(15, "GBP"),
            [
                *(("VOID", "HELD", -15, 0), ("VOID", "AVAILABLE", 15, 20)),
                *(("HOLD", "AVAILABLE", -15, 0), ("HOLD", "HELD", 15, 15)),
            ],
            {"EUR": (20, 0), "USD": (9, 0), "GBP": (0, 15)},
        ),
    ],
    ids=["one more", "more", "less", "nothing", "the same", "another currency", "as much of another currency"],
)
async def test_the_hold_follows_the_total(
    store: Database, ledger: asyncpg.Connection, new: Money, moved: list[Entry], left: dict[str, tuple[int, int]]
) -> None:
    granted = [money(20), money(9, "USD"), *([money(15, "GBP")] if "GBP" in left else [])]
    user = await user_with(store, *granted)
    order = await paid_order(store, user, 15)
    async with unit_of_work(store) as uow:
        await update_order(uow, order.id, "", costing(int(new.amount), new.currency), LATER)
        await uow.commit(b"")
    assert (await entries(ledger, order))[2:] == moved
    assert await balances(store, user) == left


async def test_a_hold_that_has_expired_does_not_follow_the_total(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    assert await expire(store, order, NOW + timedelta(days=7))
    async with unit_of_work(store) as uow:
        await update_order(uow, order.id, "", costing(18), LATER)
        await uow.commit(b"")
    assert len(await entries(ledger, order)) == 4
    assert await balances(store, user) == {"EUR": (20, 0)}


async def test_a_free_order_holds_nothing_until_it_costs_something(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 0)
    assert (order.credit_state, await entries(ledger, order)) == (CreditState.HELD, [])
    async with unit_of_work(store) as uow:
        await update_order(uow, order.id, "", costing(4), NOW)
        await uow.commit(b"")
    assert await entries(ledger, order) == [("HOLD", "AVAILABLE", -4, 16), ("HOLD", "HELD", 4, 4)]


async def test_an_order_cannot_grow_beyond_the_credit_of_its_payer(store: Database) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    async with unit_of_work(store) as uow:
        with pytest.raises(InsufficientCredit):
            await update_order(uow, order.id, "", costing(21), NOW)
    assert await balances(store, user) == {"EUR": (5, 15)}


async def confirm(store: Database, order: Order, now: datetime = LATER) -> None:
    async with unit_of_work(store) as uow:
        await confirm_order(uow, order.id, "", now)
        await uow.commit(b"")


async def cancel(store: Database, order: Order) -> None:
    async with unit_of_work(store) as uow:
        await cancel_order(uow, order.id, "", "no", LATER)
        await uow.commit(b"")


async def expire(store: Database, order: Order, now: datetime) -> bool:
    async with unit_of_work(store) as uow:
        expired = await expire_hold(uow, await uow.orders.get_for_update(order.id), now)
        await uow.commit(b"")
    return expired


async def test_a_confirmed_order_spends_what_was_held(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    await confirm(store, order)
    assert (await entries(ledger, order))[2:] == [("POST", "HELD", -15, 0), ("POST", "SPENT", 15, None)]
    assert await balances(store, user) == {"EUR": (5, 0)}
    rows = await ledger.fetch("SELECT DISTINCT type, create_time FROM credit_entries WHERE order_id = $1", order.id)
    assert {(row["type"], row["create_time"]) for row in rows} == {("HOLD", NOW), ("POST", LATER)}


async def test_a_hold_that_has_expired_is_given_back_and_spent_when_confirmed(
    store: Database, ledger: asyncpg.Connection
) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    end = NOW + timedelta(days=7)
    assert not await expire(store, order, end - timedelta(seconds=1))
    assert await balances(store, user) == {"EUR": (5, 15)}
    assert await expire(store, order, end)
    assert (await entries(ledger, order))[2:] == [("VOID", "HELD", -15, 0), ("VOID", "AVAILABLE", 15, 20)]
    await confirm(store, order, end)
    assert (await entries(ledger, order))[4:] == [("POST", "AVAILABLE", -15, 5), ("POST", "SPENT", 15, None)]
    assert await balances(store, user) == {"EUR": (5, 0)}
    rows = await ledger.fetch("SELECT create_time FROM credit_entries WHERE order_id = $1 AND type = 'VOID'", order.id)
    assert {row["create_time"] for row in rows} == {end}


async def test_a_cancelled_order_gives_back_what_was_held(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    await cancel(store, order)
    assert (await entries(ledger, order))[2:] == [("VOID", "HELD", -15, 0), ("VOID", "AVAILABLE", 15, 20)]
    assert await balances(store, user) == {"EUR": (20, 0)}


async def test_a_cancelled_order_gives_back_what_was_spent(store: Database, ledger: asyncpg.Connection) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    await confirm(store, order)
    await cancel(store, order)
    assert (await entries(ledger, order))[4:] == [("REVERSAL", "SPENT", -15, None), ("REVERSAL", "AVAILABLE", 15, 20)]
    assert await balances(store, user) == {"EUR": (20, 0)}
    rows = await ledger.fetch(
        "SELECT create_time FROM credit_entries WHERE order_id = $1 AND type = 'REVERSAL'", order.id
    )
    assert {row["create_time"] for row in rows} == {LATER}


async def test_credit_of_an_expired_hold_is_not_given_back_twice(store: Database) -> None:
    user = await user_with(store, money(20))
    order = await paid_order(store, user, 15)
    await expire(store, order, NOW + timedelta(days=7))
    await cancel(store, order)
    assert await balances(store, user) == {"EUR": (20, 0)}


async def test_several_orders_of_several_payers_are_given_back_together(store: Database) -> None:
    users = [await user_with(store, money(20), money(9, "USD")) for _ in range(2)]
    held = [await paid_order(store, user, 5) for user in users]
    dollars = await paid_order(store, users[0], 9, "USD")
    spent = await paid_order(store, users[0], 7)
    free = await paid_order(store, users[0], 0)
    await confirm(store, spent)
    async with unit_of_work(store) as uow:
        orders = [await uow.orders.get_for_update(order.id) for order in (*held, dollars, spent, free)]
        await give_back_for_orders(uow, orders, LATER)
        await uow.flush()
        assert [order.credit_state for order in orders] == ["VOIDED", "VOIDED", "VOIDED", "REVERSED", "VOIDED"]
        await uow.commit(b"")
    for user in users:
        assert await balances(store, user) == {"EUR": (20, 0), "USD": (9, 0)}


@pytest.mark.parametrize("error", [InsufficientCredit, UserNotFound])
async def test_a_refused_hold_leaves_no_order(
    store: Database, ledger: asyncpg.Connection, error: type[DomainError]
) -> None:
    user_id = (await add_user(store)).id if error is InsufficientCredit else uuid4()
    async with unit_of_work(store) as uow:
        with pytest.raises(error):
            await create_order(uow, user_id, costing(1), NOW, pay_with_credit=True)
    assert await ledger.fetchval("SELECT count(*) FROM orders WHERE user_id = $1", user_id) == 0
