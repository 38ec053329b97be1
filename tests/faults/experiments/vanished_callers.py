"""Callers whose machine or network fails, so that nothing tells the server that they have gone."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
from commerce.users.v1.user_import_pb2 import UserImportConfig
from google.protobuf.message import Message
from hyperframe.frame import DataFrame, HeadersFrame

from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.without import without
from tests.support.databases import observing
from tests.support.http2 import Connection, call_headers, grpc_message, static_block
from tests.support.large_rows import insert_users
from tests.support.locks import holding
from tests.support.lost_packets import drop_packets
from tests.support.methods import path_of
from tests.support.processes import COMMAND, Process, serving

_MAX_SECONDS = 15
# How long to wait for handlers that have not ended in that time.
_PATIENCE_SECONDS = 25
# Begins an import, without any row.
_IMPORT = users_pb.ImportUsersRequest(config=UserImportConfig(first_row_number=1))


class _Caller:
    """A caller of one method, on a connection of its own, that can vanish.

    Args:
        port: of the server.
        method: the method to call.
        request: its request.
        ends: whether to tell the server that no more requests follow.
    """

    def __init__(self, port: int, method: str, request: Message, *, ends: bool = True) -> None:
        self.method = method
        self.vanished = 0.0
        self._connection = Connection(port)
        headers = static_block(call_headers(path_of(method)))
        data = DataFrame(1, grpc_message(request.SerializeToString()), flags=["END_STREAM"] if ends else [])
        self._connection.send(HeadersFrame(1, headers, flags=["END_HEADERS"]).serialize() + data.serialize())

    async def vanish_after(self, seconds: float) -> None:
        """Take part in the connection for some seconds without reading the answers any further, and vanish."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._connection.read()
            await asyncio.sleep(0.1)
        drop_packets(self._connection.socket)
        self.vanished = time.monotonic()

    async def seconds_until_gone(self, server: Process) -> float:
        """Wait until the handler of the call has ended; return how many seconds after the caller had vanished."""
        while (seconds := time.monotonic() - self.vanished) < _PATIENCE_SECONDS:
            if any(line["method"] == path_of(self.method) for line in server.logged("call")):
                return seconds
            await asyncio.sleep(0.1)
        return float("inf")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def _run(plan: Plan) -> Result:
    return await _vanish(plan, COMMAND)


async def _control(plan: Plan) -> Result:
    return await _vanish(plan, without("grpc.aio:server=tests.faults.grpc_options:without_keepalive"))


async def _vanish(plan: Plan, program: Sequence[str]) -> Result:
    random, longest_stay = plan.random(), plan.size(full=4, smoke=2)
    # Nothing but the loss of the connection may end the handlers.
    settings: dict[str, Any] = {"default_deadline": 600, "export_stall_timeout": 600, "max_connection_age": 0}
    async with plan.database() as url, observing(url) as observer:
        (user_id,) = await create_users(url, 1)
        # More than a connection buffers.
        await insert_users(url, 20_000)
        async with serving(url, program=program, **settings) as server, holding(url, "SELECT FROM users FOR UPDATE"):
            port = await server.port()
            callers = [
                # Waits for events.
                _Caller(port, "WatchOrders", orders_pb.WatchOrdersRequest(now=True)),
                # Waits until the caller reads what was sent.
                _Caller(port, "ExportUsers", users_pb.ExportUsersRequest()),
                # Waits for PostgreSQL.
                _Caller(port, "DeactivateUser", users_pb.DeactivateUserRequest(id=user_id)),
                # Waits for the caller's next request.
                _Caller(port, "ImportUsers", _IMPORT, ends=False),
            ]
            await observer.until_waiting(1)
            await asyncio.gather(*(caller.vanish_after(random.uniform(1, longest_stay)) for caller in callers))
            gone = await asyncio.gather(*(caller.seconds_until_gone(server) for caller in callers))
            for caller in callers:
                caller.close()
    result = Result({f"{caller.method}, s": seconds for caller, seconds in zip(callers, gone, strict=True)})
    result.require(max(gone) < float("inf"), "a handler did not end")
    result.require_in_time(max(gone) <= _MAX_SECONDS, f"a handler took more than {_MAX_SECONDS} s to end")
    return result


EXPERIMENT = Experiment(
    name="vanished-callers",
    fault="all packets between the server and four callers are lost, in each kind of call",
    passes=f"each handler ends within {_MAX_SECONDS} s",
    run=_run,
    control=_control,
    defence="keepalive",
)
