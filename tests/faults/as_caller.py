"""Calls of any method, with the credential of any caller, and what became of them."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_import_pb2 import UserImportConfig
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.protobuf.message import Message
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.support.clients import Clients
from tests.support.failures import failure_of
from tests.support.methods import ALL_METHODS, path_of
from tests.support.requests import GOOD_REQUESTS

Metadata = Sequence[tuple[str, str]]
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STREAMS: dict[str, Message] = {
    "ExportUsers": users_pb.ExportUsersRequest(),
    "ExportOrders": orders_pb.ExportOrdersRequest(),
    "WatchUsers": users_pb.WatchUsersRequest(earliest=True),
    "WatchOrders": orders_pb.WatchOrdersRequest(earliest=True),
    "ImportUsers": users_pb.ImportUsersRequest(config=UserImportConfig(first_row_number=1)),
}
_USERS_NAMED = """
SELECT id::text FROM users WHERE id::text = ANY($1) OR email = ANY($1) OR username = ANY($1)
UNION SELECT user_id::text FROM orders WHERE id::text = ANY($1) OR order_number = ANY($1)
UNION SELECT author_id::text FROM order_notes WHERE id::text = ANY($1)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        code: of its status.
        reason: of a failure, if the service sent the status.
        permission: the missing one, if that is the reason.
        message: of the status.
        answer: the response, or the first ones of a stream, joined.
    """

    code: grpc.StatusCode
    reason: str = ""
    permission: str = ""
    message: str = ""
    answer: bytes = b""


async def call_as(channel: grpc.aio.Channel, method: str, request: bytes, metadata: Metadata) -> Outcome:
    """Call a method with a credential; of a watch, read until its first checkpoint."""
    descriptor = ALL_METHODS[method]
    make: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
    }[descriptor.client_streaming, descriptor.server_streaming]
    sent = iter([request]) if descriptor.client_streaming else request
    call = make(path_of(method))(sent, metadata=metadata, timeout=20)
    try:
        if descriptor.server_streaming:
            return Outcome(grpc.StatusCode.OK, answer=await _read(call, method))
        return Outcome(grpc.StatusCode.OK, answer=await call)
    except grpc.aio.AioRpcError as error:
        failure = failure_of(error)
        return Outcome(failure.code, failure.reason, failure.metadata.get("permission", ""), failure.message)
    finally:
        call.cancel()


async def _read(call: Any, method: str) -> bytes:
    answer = b""
    async for response in call:
        answer += response
        if method == "WatchUsers" and users_pb.WatchUsersResponse.FromString(response).HasField("checkpoint"):
            break
        if method == "WatchOrders" and orders_pb.WatchOrdersResponse.FromString(response).HasField("checkpoint"):
            break
    return answer


async def good_request(clients: Clients, method: str) -> Any:
    """Return a valid request of a method, about new things where it is about single ones."""
    if method in _STREAMS:
        request = type(_STREAMS[method])()
        request.CopyFrom(_STREAMS[method])
        return request
    return await GOOD_REQUESTS[method](clients)


def strings_of(message: Message) -> list[str]:
    """Return all texts in a message."""
    found: list[str] = []
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type and field.message_type.GetOptions().map_entry:
            continue
        for one in values:
            found += strings_of(one) if field.message_type else [one] if isinstance(one, str) else []
    return found


async def users_named(connection: asyncpg.Connection, request: Message) -> set[str]:
    """Return the ids of the users to whom everything belongs that a request names."""
    rows = await connection.fetch(_USERS_NAMED, strings_of(request))
    return {row["id"] for row in rows}


def about_nothing(request: bytes) -> bytes:
    """Return a request that names things that do not exist in place of those that it names by their ids."""
    return _UUID.sub(lambda _: str(uuid4()).encode(), request)


class _Credential(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*self._metadata)
        return await continuation(client_call_details._replace(metadata=metadata), request)


@asynccontextmanager
async def clients_as(port: int, metadata: Metadata) -> AsyncIterator[Clients]:
    """Open a channel whose unary calls have a credential."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=[_Credential(metadata)]) as channel:
        yield Clients(channel, UserServiceStub(channel), OrderServiceStub(channel), HealthStub(channel))
