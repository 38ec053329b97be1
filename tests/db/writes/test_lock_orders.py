"""Transactions that need the same two rows lock them in one order, so that two of them cannot wait for each other.

A test holds the row that comes first. All calls wait for it, and none of them has locked the other row yet.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict, UserImportRow
from commerce.users.v1.user_pb2 import User
from structlog.testing import capture_logs

from tests.support.clients import Clients
from tests.support.databases import observing
from tests.support.failures import settled
from tests.support.locks import holding
from tests.support.requests import euros, user_with_credit

LOCK_USER = "SELECT FROM users WHERE id = $1 FOR UPDATE"
LOCK_ACCOUNT = "SELECT FROM credit_accounts WHERE user_id = $1 FOR UPDATE"
INSERT_TAG = "INSERT INTO tags (id, name) VALUES (gen_random_uuid(), $1)"

Call = Callable[[], Awaitable[Any]]


async def meet(url: str, lock: str, first: object, second: object, *calls: Call) -> None:
    """Let the calls meet at the first row, and check that none of them holds the second; all of them succeed."""
    async with observing(url) as observer:
        async with holding(url, lock, first) as held:
            started = [asyncio.ensure_future(call()) for call in calls]
            await observer.until_waiting(len(calls))
            # Fails if one of the calls has this lock, because that call waits for this transaction.
            await held.execute("SET LOCAL lock_timeout = '10ms'")
            await held.execute(lock, second)
        with capture_logs() as logs:
            answers, failures = await settled(*started)
    assert not failures
    assert len(answers) == len(calls)
    assert not [line for line in logs if line["event"] == "retrying"]


async def two_users(clients: Clients) -> tuple[UUID, UUID]:
    """Create two users with credit, and return their ids in the order in which they are locked."""
    first, second = sorted([UUID(await user_with_credit(clients)) for _ in range(2)])
    return first, second


def transfer_orders(clients: Clients, giver: UUID, taker: UUID) -> Call:
    request = pb.TransferOrdersRequest(from_user_id=str(giver), to_user_id=str(taker))
    return partial(clients.orders.TransferOrders, request)


def transfer_credit(clients: Clients, giver: UUID, taker: UUID) -> Call:
    request = users_pb.TransferCreditRequest(from_user_id=str(giver), to_user_id=str(taker), amount=euros(1))
    return partial(clients.users.TransferCredit, request)


@pytest.mark.parametrize("transfer", [transfer_orders, transfer_credit])
async def test_transfers_lock_their_two_users_by_id(
    clients: Clients, shared_database_url: str, transfer: Callable[[Clients, UUID, UUID], Call]
) -> None:
    low, high = await two_users(clients)
    calls = [transfer(clients, low, high), transfer(clients, high, low)]
    await meet(shared_database_url, LOCK_USER, low, high, *calls)


async def test_transfers_of_credit_lock_their_two_accounts_by_user(clients: Clients, shared_database_url: str) -> None:
    low, high = await two_users(clients)
    calls = [transfer_credit(clients, low, high), transfer_credit(clients, high, low)]
    await meet(shared_database_url, LOCK_ACCOUNT, low, high, *calls)


async def test_imports_lock_the_users_of_a_chunk_by_id(clients: Clients, shared_database_url: str) -> None:
    low, high = sorted([await clients.create_user() for _ in range(2)], key=lambda user: user.id)

    async def messages(*users: User) -> AsyncIterator[users_pb.ImportUsersRequest]:
        on_conflict = UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UPDATE
        yield users_pb.ImportUsersRequest(config=UserImportConfig(on_conflict=on_conflict))
        for user in users:
            row = UserImportRow(email=user.email, username=user.username, full_name="Grace Hopper")
            yield users_pb.ImportUsersRequest(row=row)

    async def import_in_order(*users: User) -> users_pb.ImportUsersResponse:
        response = await clients.users.ImportUsers(messages(*users))
        assert not response.failure_count
        return response

    calls = [partial(import_in_order, low, high), partial(import_in_order, high, low)]
    await meet(shared_database_url, LOCK_USER, UUID(low.id), UUID(high.id), *calls)


async def test_new_tags_are_inserted_by_name(clients: Clients, shared_database_url: str) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id) for _ in range(2)]
    prefix = f"t{uuid4().hex[:12]}"
    low, high = f"{prefix}-a", f"{prefix}-b"
    calls = [
        partial(clients.orders.AddOrderTags, pb.AddOrderTagsRequest(id=order.id, tags=tags))
        for order, tags in zip(orders, ([low, high], [high, low]), strict=True)
    ]
    await meet(shared_database_url, INSERT_TAG, low, high, *calls)
