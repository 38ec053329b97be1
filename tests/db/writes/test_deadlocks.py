"""Calls that lock the same rows meet in the middle: they wait for each other in one order, and none ends in a deadlock.

Each test holds a row that both calls need, lets them run until both wait, and releases it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from google.type.money_pb2 import Money

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.ledger import ledger_differences
from tests.support.clients import Clients, item, new_order, new_user
from tests.support.failures import failure_of
from tests.support.locks import holding, until_blocked
from tests.support.logs import Log
from tests.support.servers import OwnServer
from tests.support.waiting import eventually

HOLD_ACCOUNTS = "SELECT FROM credit_accounts WHERE user_id = $1 AND currency = $2 FOR UPDATE"
HOLD_ORDERS = "SELECT FROM orders WHERE id = ANY($1) FOR UPDATE"
# What a call can find when a purge was first.
GONE = {"ORDER_NOT_FOUND", "USER_NOT_FOUND", "USER_IN_USE", "OK", "ILLEGAL_TRANSITION", "ORDER_NOT_PENDING"}


async def user_with_credit(clients: Clients, *currencies: str) -> str:
    user = await clients.create_user()
    for currency in currencies or ("EUR",):
        amount = Money(currency_code=currency, units=1000)
        await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user.id, amount=amount))
    return user.id


async def place(clients: Clients, user_id: str, currency: str = "EUR") -> str:
    order = new_order(user_id, items=[item("anvil", 1, 10, currency=currency)])
    request = orders_pb.CreateOrderRequest(order=order, pay_with_credit=True)
    return (await clients.orders.CreateOrder(request)).order.id


async def waiting(connection: asyncpg.Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    count: int = await connection.fetchval(query)
    return count


async def meet(own: OwnServer, calls: Sequence[Awaitable[object]], statement: str, *values: object) -> list[str]:
    """Start each call once the one before waits, then release them all; returns `OK` or the reason of each."""
    tasks: list[asyncio.Future[object]] = []
    async with holding(own.database_url, statement, *values):
        for call in calls:
            tasks.append(asyncio.ensure_future(call))
            await eventually(lambda: _waits_or_done(own, tasks))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [failure_of(result).reason if isinstance(result, BaseException) else "OK" for result in results]  # type: ignore[arg-type] # an AioRpcError


async def _waits_or_done(own: OwnServer, tasks: Sequence[asyncio.Future[object]]) -> bool:
    return await waiting(own.connection) >= sum(not task.done() for task in tasks)


async def require_whole_ledger(own: OwnServer) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=own.database_url), pool_size=1)
    assert await ledger_differences(engine) == []
    await engine.dispose()


def retries(log: Log) -> list[object]:
    return [line for line in log.lines() if line["event"] == "retrying"]


async def test_two_orders_change_their_currencies_in_opposite_directions(own: OwnServer, log: Log) -> None:
    clients = own.clients
    user = await user_with_credit(clients, "EUR", "USD")
    euros, dollars = await place(clients, user, "EUR"), await place(clients, user, "USD")

    def to(order_id: str, currency: str) -> Awaitable[object]:
        order = Order(id=order_id, items=[item("anvil", 1, 20, currency=currency)])
        return clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=order))

    calls = [to(dollars, "EUR"), to(euros, "USD")]
    assert await meet(own, calls, HOLD_ACCOUNTS, UUID(user), "EUR") == ["OK", "OK"]
    assert not retries(log)
    await require_whole_ledger(own)


def confirm(clients: Clients, order_id: str) -> Awaitable[object]:
    return clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))


def cancel(clients: Clients, order_id: str) -> Awaitable[object]:
    return clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=order_id, reason="no"))


def update(clients: Clients, order_id: str) -> Awaitable[object]:
    order = Order(id=order_id, items=[item("anvil", 1, 20)])
    return clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=order))


def tag(clients: Clients, order_id: str) -> Awaitable[object]:
    return clients.orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=order_id, tags=["met"]))


def purge(clients: Clients, user_id: str) -> Awaitable[object]:
    return clients.users.PurgeUser(pb.PurgeUserRequest(id=user_id, force=True))


@pytest.mark.parametrize("purge_comes", ["first", "second"])
@pytest.mark.parametrize("transferred", [True, False], ids=["of another user", "of the user"])
@pytest.mark.parametrize("change", [confirm, cancel, update, tag])
@pytest.mark.parametrize("purged", ["payer", "owner"])
async def test_a_purge_meets_a_change_of_a_paid_order(
    own: OwnServer,
    change: Callable[[Clients, str], Awaitable[object]],
    purged: str,
    purge_comes: str,
    *,
    transferred: bool,
) -> None:
    clients = own.clients
    payer, heir = await user_with_credit(clients), (await clients.create_user()).id
    order_id = await place(clients, payer)
    if transferred:
        await clients.orders.TransferOrders(orders_pb.TransferOrdersRequest(from_user_id=payer, to_user_id=heir))
    calls = [change(clients, order_id), purge(clients, heir if purged == "owner" else payer)]
    if purge_comes == "first":
        calls.reverse()
    outcomes = await meet(own, calls, HOLD_ACCOUNTS, UUID(payer), "EUR")
    purging, changing = outcomes if purge_comes == "first" else outcomes[::-1]
    assert purging == "OK"
    assert changing in {"OK", "ORDER_NOT_FOUND"}
    await require_whole_ledger(own)


async def test_purges_and_everything_about_paid_orders_at_once(own: OwnServer) -> None:
    clients = own.clients
    for _ in range(6):
        users = [await user_with_credit(clients) for _ in range(3)]
        orders = [await place(clients, user) for user in users for _ in range(2)]
        for giver, taker in (users[:2], users[1:]):
            await clients.orders.TransferOrders(orders_pb.TransferOrdersRequest(from_user_id=giver, to_user_id=taker))
        note = OrderNote(order_id=orders[0], author_id=users[1], body="x")
        await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))
        calls = [
            *(purge(clients, user) for user in users),
            *(change(clients, order) for change in (confirm, cancel, update, tag) for order in orders),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        reasons = {failure_of(result).reason for result in results if isinstance(result, BaseException)}  # type: ignore[arg-type] # an AioRpcError
        assert reasons <= GONE
        await require_whole_ledger(own)


async def test_a_transfer_of_orders_meets_a_purge_of_their_payer(own: OwnServer, log: Log) -> None:
    clients = own.clients
    payer, owner, heir = await user_with_credit(clients), await clients.create_user(), await clients.create_user()
    orders = [await place(clients, payer) for _ in range(2)]
    transfer = orders_pb.TransferOrdersRequest(from_user_id=payer, to_user_id=owner.id)
    await clients.orders.TransferOrders(transfer)
    # An update moves the row of the first order behind that of the second.
    await tag(clients, orders[0])
    onwards = orders_pb.TransferOrdersRequest(from_user_id=owner.id, to_user_id=heir.id)
    calls = [clients.orders.TransferOrders(onwards), purge(clients, payer)]
    assert await meet(own, calls, HOLD_ORDERS, [UUID(orders[0])]) == ["OK", "OK"]
    assert not retries(log)


async def test_an_import_that_writes_row_by_row_locks_users_by_their_id(own: OwnServer) -> None:
    first, second = sorted([await own.clients.create_user() for _ in range(2)], key=lambda user: user.id)
    # Two new users with one username: the rows are written one by one.
    twins = [new_user(username=f"twin{first.id[-12:]}") for _ in range(2)]
    rows = [
        UserImportRow(email=user.email, username=user.username, full_name="Changed") for user in (second, first, *twins)
    ]

    async def messages() -> AsyncIterator[pb.ImportUsersRequest]:
        yield pb.ImportUsersRequest(
            config=UserImportConfig(on_conflict=UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UPDATE)
        )
        for row in rows:
            yield pb.ImportUsersRequest(row=row)

    hold = "SELECT FROM users WHERE id = $1 FOR UPDATE"
    async with holding(own.database_url, hold, UUID(first.id)) as connection:
        importing = asyncio.ensure_future(own.clients.users.ImportUsers(messages()))
        await until_blocked(connection)
        # The import waits for the first user, and has not locked the second.
        async with holding(own.database_url, f"{hold} NOWAIT", UUID(second.id)):
            pass
    imported = await importing
    assert (imported.updated_count, imported.created_count, imported.failure_count) == (2, 1, 1)
