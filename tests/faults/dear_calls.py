"""Callers whose requests cost a server far more than they cost their callers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from google.protobuf.message import Message

from service.domain.notes import MAX_BODY_LENGTH
from tests.faults.apart import Signals
from tests.faults.as_caller import Metadata
from tests.faults.scheduling import leave_processor_to_others
from tests.support.clients import Clients, connect, item
from tests.support.failures import ENDED_WHILE_SENDING, failure_of
from tests.support.methods import ALL_METHODS, path_of
from tests.support.passwords import PASSWORD

_CALLERS = 50
_LARGE_ORDERS = 8
_NOTES = 40
_DEADLINE_SECONDS = 5


async def add_data(clients: Clients) -> Mapping[str, Message]:
    """Create what the calls are about, and return the request of each kind of call, by the method and what is dear."""
    user = await clients.create_user()
    # The longest order that is accepted.
    items = [item("p" * 100, 1, 1) for _ in range(500)]
    orders = [(await clients.create_order(user.id, items=items)).id for _ in range(_LARGE_ORDERS)]
    for number in range(_NOTES):
        note = OrderNote(
            order_id=orders[0], author_id=user.id, body=f"{number} {'a b ' * MAX_BODY_LENGTH}"[:MAX_BODY_LENGTH]
        )
        written = (await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))).note
        await clients.orders.PublishOrderNote(orders_pb.PublishOrderNoteRequest(id=written.id))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = " ".join(f"{first}{second}" for first in "abc" for second in letters[:30])
    return {
        "CreateOrder of 30,000 empty items": orders_pb.CreateOrderRequest(
            order=Order(user_id=user.id, items=[OrderItem()] * 30_000)
        ),
        "BatchGetUsers of 10,000 bad ids": users_pb.BatchGetUsersRequest(ids=["no id"] * 10_000),
        "BatchGetOrders of one large order": orders_pb.BatchGetOrdersRequest(ids=orders[:1] * 1_000),
        "ListOrders of large orders": orders_pb.ListOrdersRequest(user_id=user.id),
        "SearchOrderNotes for 90 words": orders_pb.SearchOrderNotesRequest(query=words),
        "GetOrderStatistics": orders_pb.GetOrderStatisticsRequest(),
        "ListUsers with the total size": users_pb.ListUsersRequest(page_size=1_000, include_total_size=True),
        "ImportUsers with passwords": users_pb.ImportUsersRequest(config=UserImportConfig(first_row_number=1)),
        "ExportUsers, read slowly": users_pb.ExportUsersRequest(),
    }


async def make_dear_calls(
    signals: Signals, port: int, kind: str, request: bytes, seconds: float, metadata: Metadata
) -> Counter[str]:
    """Make calls of one kind from 50 callers for some seconds, and return their outcomes; counts itself and the calls.

    It begins when it is told to, so that the time that it takes to start is not measured.
    """
    leave_processor_to_others()
    signals.count()
    await signals.begin.wait()
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + seconds
    method = kind.split(maxsplit=1)[0].rstrip(",")

    async def call(number: int) -> None:
        async with connect(port, own_connection=number % 5 == 0) as clients:
            while time.monotonic() < until and not signals.stop.is_set():
                try:
                    await _call(clients.channel, method, request, metadata, until)
                except grpc.aio.AioRpcError as error:
                    failure = failure_of(error)
                    ended = failure.message == ENDED_WHILE_SENDING
                    outcomes[failure.reason or (failure.message if ended else failure.code.name)] += 1
                    await asyncio.sleep(0.05)
                else:
                    outcomes["OK"] += 1
                signals.count()

    await asyncio.gather(*(call(number) for number in range(_CALLERS)))
    return outcomes


async def _call(channel: grpc.aio.Channel, method: str, request: bytes, metadata: Metadata, until: float) -> None:
    descriptor = ALL_METHODS[method]
    deadline = max(min(_DEADLINE_SECONDS, until - time.monotonic()), 0.1)
    if descriptor.client_streaming:
        upload: Any = channel.stream_unary(path_of(method))
        await upload(_rows(request), metadata=metadata, timeout=deadline)
    elif descriptor.server_streaming:
        export: Any = channel.unary_stream(path_of(method))
        async for _ in export(request, metadata=metadata, timeout=deadline):
            await asyncio.sleep(0.5)
    else:
        unary: Any = channel.unary_unary(path_of(method))
        await unary(request, metadata=metadata, timeout=deadline)


async def _rows(config: bytes) -> AsyncIterator[bytes]:
    yield config
    for number in range(1_000):
        name = f"i{time.monotonic_ns()}{number}"[:40]
        row = UserImportRow(email=f"{name}@example.com", username=name, password=PASSWORD)
        yield users_pb.ImportUsersRequest(row=row).SerializeToString()


async def no_turn(_turns: object, rest: float = 0.0) -> None:
    """Take no turn of the event loop, for the control."""


def no_violations(_descriptor: object, _data: bytes) -> list[object]:
    """Find no violation of any size, for the control."""
    return []
