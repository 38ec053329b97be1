"""A real PgBouncer in transaction mode, with few connections for many callers."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from commerce.users.v1.user_pb2 import User
from google.type.money_pb2 import Money

from service.server import StartError
from tests.support.clients import Clients, new_order, new_user
from tests.support.databases import observing
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.passwords import PASSWORD
from tests.support.pgbouncers import POOL_SIZE, PROGRAM, pgbouncer_to
from tests.support.processes import run_command
from tests.support.servers import running_server, serving_clients
from tests.support.watching import watch_orders

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

CALLERS = 16
LIMITS = "statement_timeout,idle_in_transaction_session_timeout"


@pytest.fixture
async def pooled_url(database_url: str) -> AsyncIterator[str]:
    async with pgbouncer_to(database_url) as url:
        yield url


async def import_rows(names: list[str]) -> AsyncIterator[pb.ImportUsersRequest]:
    yield pb.ImportUsersRequest(config=UserImportConfig(on_conflict=UserImportOnConflict.USER_IMPORT_ON_CONFLICT_SKIP))
    for name in names:
        yield pb.ImportUsersRequest(row=UserImportRow(email=f"{name}@example.com", username=name))


async def use_everything(clients: Clients) -> None:
    users, orders = clients.users, clients.orders
    credit = Money(currency_code="EUR", units=200)
    user = (
        await users.CreateUser(pb.CreateUserRequest(user=new_user(), password=PASSWORD, welcome_credit=credit))
    ).user
    await users.VerifyPassword(pb.VerifyPasswordRequest(email=user.email, password=PASSWORD))
    with fails(grpc.StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS"):
        await clients.create_user(email=user.email)

    for pay_with_credit in (False, True):
        request = orders_pb.CreateOrderRequest(
            order=new_order(user.id), request_id=str(uuid4()), pay_with_credit=pay_with_credit
        )
        first, again = await asyncio.gather(orders.CreateOrder(request), orders.CreateOrder(request))
        assert first == again == await orders.CreateOrder(request)
        confirmed = await orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=first.order.id))
        assert (await orders.GetOrder(orders_pb.GetOrderRequest(id=first.order.id))).order == confirmed.order
        with fails(grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"):
            await orders.DeliverOrder(orders_pb.DeliverOrderRequest(id=first.order.id))

    renamed = await users.UpdateUser(pb.UpdateUserRequest(user=User(id=user.id, full_name="Zoë")))
    assert (await users.GetUser(pb.GetUserRequest(username=user.username))).user == renamed.user
    found = await users.SearchUsers(pb.SearchUsersRequest(query=user.username))
    assert [result.user for result in found.results] == [renamed.user]
    page = await orders.ListOrders(orders_pb.ListOrdersRequest(user_id=user.id, include_total_size=True))
    assert page.total_size == 2
    await orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest(user_id=user.id))
    balance = await users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user.id))
    assert balance.balances[0].available.units == 79


async def test_everything_works_for_more_callers_than_there_are_connections(database_url: str, pooled_url: str) -> None:
    settings = {"pgbouncer_mode": "transaction", "db_pool_size": CALLERS}
    async with (
        serving_clients(pooled_url, **settings) as clients,
        observing(database_url) as observer,
        watch_orders(clients, now=True) as watch,
    ):
        await watch.checkpoint()
        names = [f"imported{number}" for number in range(500)]
        imported, *_ = await asyncio.gather(
            clients.users.ImportUsers(import_rows(names)), *(use_everything(clients) for _ in range(CALLERS))
        )
        assert imported
        assert imported.created_count == 500
        exported = clients.users.ExportUsers(pb.ExportUsersRequest())
        assert sum([len(answer.users) async for answer in exported]) == 500 + CALLERS
        # Both orders of each, placed and confirmed once.
        assert len({event.id for event in await watch.events(4 * CALLERS)}) == 4 * CALLERS
        assert await observer.count("orders") == 2 * CALLERS
        others = "backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"
        backends = await observer.count("pg_stat_activity", others)
        assert 0 < backends <= POOL_SIZE


async def test_the_statement_timeout_holds(database_url: str, pooled_url: str) -> None:
    settings = {"pgbouncer_mode": "transaction", "db_statement_timeout": 1, "default_deadline": 20}
    async with serving_clients(pooled_url, **settings) as clients:
        user = await clients.create_user()
        async with holding(database_url, "LOCK TABLE users, user_profiles, orders"):
            for call in (
                clients.users.GetUser(pb.GetUserRequest(id=user.id)),
                clients.users.GetUser(pb.GetUserRequest(email=user.email)),
                clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest()),
                clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=new_order(user.id))),
            ):
                with fails(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                    await call
        assert (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == user


async def test_without_the_setting_a_server_does_not_start(database_url: str, pooled_url: str) -> None:
    with pytest.raises(StartError, match="COMMERCE_PGBOUNCER_MODE"):
        async with running_server(pooled_url):
            pass
    async with pgbouncer_to(database_url, ignore_startup_parameters=LIMITS) as url:
        with pytest.raises(StartError, match="COMMERCE_PGBOUNCER_MODE"):
            async with running_server(url):
                pass


@pytest.mark.parametrize("command", [["migrate"], ["relay", "--nats-url", "nats://127.0.0.1:1"]])
async def test_commands_that_need_a_session_fail_with_a_reason(pooled_url: str, command: list[str]) -> None:
    ended = await run_command(*command, database_url=pooled_url, pgbouncer_mode="transaction")
    assert ended.status == 1
    assert "set DATABASE_URL to the URL of PostgreSQL itself" in ended.stderr


@pytest.mark.parametrize("command", ["gc", "verify-ledger"])
async def test_commands_that_need_no_session_run(pooled_url: str, command: str) -> None:
    ended = await run_command(command, database_url=pooled_url, pgbouncer_mode="transaction")
    assert ended.status == 0, ended.stderr


async def test_a_search_that_nobody_waits_for_is_cancelled_and_its_connection_stays_usable(
    database_url: str, pooled_url: str
) -> None:
    search = orders_pb.SearchOrderNotesRequest(query="fragile")
    async with (
        serving_clients(pooled_url, pgbouncer_mode="transaction") as clients,
        observing(database_url) as observer,
    ):
        await clients.orders.SearchOrderNotes(search)
        async with holding(database_url, "LOCK TABLE order_notes"):
            for _ in range(3):
                reading = asyncio.ensure_future(clients.orders.SearchOrderNotes(search))
                await observer.until_waiting(1)
                reading.cancel()
                await observer.until_idle()
        for _ in range(3):
            await clients.orders.SearchOrderNotes(search)
