"""Transactions that wait for a connection: their limits, their share of the pool, and when they do not begin."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from grpc import StatusCode
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from service.application.ports.errors import DeadlineExceeded
from service.config import DatabaseSettings, load
from service.db.database import Database
from service.domain.errors import UserNotFound
from service.runtime.deadline import Deadline
from service.server import MESSAGE_ENCODERS
from tests.support.databases import Observer
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.requests import euros
from tests.support.sent_statements import sent_statements
from tests.support.servers import serving_clients
from tests.support.waiting import eventually


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with connections for one transaction and one single statement."""
    database = Database(load(DatabaseSettings, DATABASE_URL=database_url, db_pool_size=2), MESSAGE_ENCODERS)
    yield database
    await database.close()


async def read(database: Database, deadline: Deadline) -> None:
    async with database.unit_of_work(actor="test", request=None, time_left=deadline) as uow:
        with pytest.raises(UserNotFound):
            await uow.users.get_for_update(uuid4())


async def test_the_time_left_is_that_after_the_wait_for_a_connection(database: Database) -> None:
    with sent_statements() as sent:
        async with database.unit_of_work(actor="test", request=None, time_left=Deadline(60)) as first:
            with pytest.raises(UserNotFound):
                await first.users.get_for_update(uuid4())
            waiting = asyncio.create_task(read(database, Deadline(20)))
            await asyncio.sleep(1)
        await waiting
    timeouts = [values[0] for statement, values in sent if "statement_timeout" in statement]
    assert len(timeouts) == 2
    assert timeouts[1] <= 19_000


async def test_a_transaction_that_is_late_when_it_gets_a_connection_does_not_begin(database: Database) -> None:
    deadline = Deadline(60)
    with sent_statements(with_control=True) as sent:
        async with database.unit_of_work(actor="test", request=None, time_left=Deadline(60)) as first:
            with pytest.raises(UserNotFound):
                await first.users.get_for_update(uuid4())
            waiting = asyncio.create_task(read(database, deadline))
            await asyncio.sleep(0.1)
            before = len(sent)
            deadline.end()
        with pytest.raises(DeadlineExceeded):
            await waiting
    assert [statement for statement, _ in sent[before:] if not statement.startswith("ROLLBACK")] == []
    # The slots are free again.
    await read(database, Deadline(10))


async def test_a_transaction_that_nobody_waits_for_any_longer_does_not_begin(database: Database) -> None:
    deadline = Deadline(60)
    deadline.end()
    with sent_statements(with_control=True) as sent:
        async with database.unit_of_work(actor="test", request=None, time_left=deadline) as uow:
            with pytest.raises(DeadlineExceeded):
                await uow.users.get_for_update(uuid4())
    assert sent == []


async def test_a_call_whose_client_has_gone_does_not_begin(database_url: str, observer: Observer) -> None:
    async with serving_clients(database_url, db_pool_size=2) as clients, AsyncExitStack() as stack:
        user = await clients.create_user()
        by_name = users_pb.GetUserRequest(username=user.username)
        await clients.users.GetUser(by_name)
        lock = await stack.enter_async_context(AsyncExitStack())
        await lock.enter_async_context(holding(database_url, "LOCK TABLE users"))
        reads = [asyncio.ensure_future(clients.users.GetUser(by_name)) for _ in range(2)]
        await observer.until_waiting(2)
        with sent_statements() as sent:
            gone = [
                asyncio.ensure_future(clients.users.GetUser(by_name)),
                asyncio.ensure_future(clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user.id))),
            ]
            await eventually(lambda: _running("GetUser") == 3 and _running("DeactivateUser") == 1)
            for call in gone:
                call.cancel()
            await eventually(lambda: _running("GetUser") == 2 and _running("DeactivateUser") == 0)
            await lock.aclose()
            await asyncio.gather(*reads)
            assert (await clients.users.GetUser(by_name)).user == user
        assert len(sent) == 1


def _running(method: str) -> int:
    # This is how gRPC names the tasks of calls.
    return sum(f"/{method}]" in task.get_name() for task in asyncio.all_tasks())


async def test_transactions_that_wait_for_a_lock_leave_connections_for_others(
    database_url: str, observer: Observer
) -> None:
    async with serving_clients(database_url, db_pool_size=5, db_pool_timeout=0.5) as clients:
        locked, payer, other = [await clients.create_user() for _ in range(3)]
        await clients.create_order(other.id)
        await clients.users.GrantCredit(
            users_pb.GrantCreditRequest(user_id=payer.id, amount=euros(100), request_id=str(uuid4()))
        )
        async with holding(database_url, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(locked.id)):
            transfers = [
                asyncio.ensure_future(
                    clients.users.TransferCredit(
                        users_pb.TransferCreditRequest(
                            from_user_id=payer.id, to_user_id=locked.id, amount=euros(1), request_id=str(uuid4())
                        )
                    )
                )
                for _ in range(4)
            ]
            await observer.until_waiting(4)
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=other.id))
            await clients.create_order(other.id)
            assert (await clients.users.GetUser(users_pb.GetUserRequest(username=other.username))).user == other
        await asyncio.gather(*transfers)


async def test_a_connection_whose_rollback_fails_is_not_used_again(database: Database) -> None:
    """As when PostgreSQL cancels the ROLLBACK, because it took longer than the call had left."""
    checked_out: list[Any] = []
    event.listen(database.engine.sync_engine, "checkout", lambda connection, *_: checked_out.append(connection))
    sleeping: list[asyncio.Task[Any]] = []

    async def leave_it_busy() -> None:
        async with database.unit_of_work(actor="test", request=None, time_left=Deadline(60)) as uow:
            with pytest.raises(UserNotFound):
                await uow.users.get_for_update(uuid4())
            statement = checked_out[-1].driver_connection.execute("SELECT pg_sleep(60)")
            sleeping.append(asyncio.create_task(statement))
            await asyncio.sleep(0.1)

    with pytest.raises(DBAPIError, match="another operation is in progress"):
        await leave_it_busy()
    ended = await asyncio.gather(*sleeping, return_exceptions=True)
    assert isinstance(ended[0], Exception)
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined] # QueuePool has it
    await read(database, Deadline(10))
