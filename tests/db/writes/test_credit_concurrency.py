"""Concurrent transfers of credit: the total does not change, and no call fails with a deadlock."""

import asyncio
import random
from decimal import Decimal

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.orders.v1.order_pb2 import Order
from google.type.money_pb2 import Money

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.ledger import ledger_differences
from tests.support.clients import Clients, item, new_order
from tests.support.databases import driver_connection
from tests.support.failures import failure_of
from tests.support.servers import serving_clients

CLIENTS = 64
CALLS = 12
USERS = 6
GRANTED = Decimal("1000.00")
EXPECTED = {"INSUFFICIENT_CREDIT", "ILLEGAL_TRANSITION"}


def cents(amount: int) -> Money:
    return Money(currency_code="EUR", units=amount // 100, nanos=amount % 100 * 10_000_000)


async def one_client(clients: Clients, users: list[str], orders: list[str], chance: random.Random) -> list[str]:
    """Make some random calls, and return the reasons of those that failed."""
    failures = []
    for _ in range(CALLS):
        call = chance.choice(["transfer", "transfer", "order", "confirm", "cancel", "update"])
        user, other = chance.sample(users, 2)
        amount = chance.randrange(1, 40_000)
        try:
            if call == "transfer":
                transfer = pb.TransferCreditRequest(from_user_id=user, to_user_id=other, amount=cents(amount))
                await clients.users.TransferCredit(transfer)
            elif call == "order" or not orders:
                order = new_order(user, items=[item("bolt", 1, 0, 10_000_000), item("anvil", 1, amount // 100)])
                placing = orders_pb.CreateOrderRequest(order=order, pay_with_credit=True)
                orders.append((await clients.orders.CreateOrder(placing)).order.id)
            elif call == "confirm":
                await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=chance.choice(orders)))
            elif call == "cancel":
                cancelling = orders_pb.CancelOrderRequest(id=chance.choice(orders), reason="chance")
                await clients.orders.CancelOrder(cancelling)
            else:
                changed = Order(id=chance.choice(orders), items=[item("anvil", 2, amount // 100)])
                await clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=changed))
        except grpc.aio.AioRpcError as error:
            failures.append(failure_of(error).reason)
    return failures


async def test_64_clients_conserve_the_sum_to_the_cent(database_url: str) -> None:
    seed = random.randrange(10**9)
    # A machine that is busy with other things refuses none of the calls.
    async with serving_clients(database_url, db_pool_timeout=60) as clients:
        users = [(await clients.create_user()).id for _ in range(USERS)]
        for user in users:
            await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user, amount=cents(100_000)))
        orders: list[str] = []
        running = [one_client(clients, users, orders, random.Random(seed + n)) for n in range(CLIENTS)]
        failures = {reason for reasons in await asyncio.gather(*running) for reason in reasons}
    assert failures <= EXPECTED | {"ORDER_NOT_PENDING"}, (seed, failures)
    async with driver_connection(database_url) as connection:
        users_have = await connection.fetchval("SELECT sum(available + held) FROM credit_accounts")
        spent = await connection.fetchval("SELECT coalesce(sum(amount), 0) FROM credit_entries WHERE account = 'SPENT'")
        posted = await connection.fetchval(
            "SELECT coalesce(sum(total_amount), 0) FROM orders WHERE credit_state = 'POSTED'"
        )
        moves = await connection.fetchval("SELECT count(*) FROM credit_entries")
    assert users_have + spent == GRANTED * USERS, seed
    assert spent == posted, seed
    assert moves > CLIENTS, seed
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=1)
    assert await ledger_differences(engine) == [], seed
    await engine.dispose()
