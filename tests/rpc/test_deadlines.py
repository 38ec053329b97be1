"""The deadline of a call reaches PostgreSQL, whichever way its statements take."""

import asyncio
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.users.v1.user_pb2 import User

from tests.support.clients import new_order
from tests.support.databases import observing
from tests.support.locks import holding
from tests.support.methods import path_of
from tests.support.servers import serving_clients
from tests.support.waiting import eventually

DEADLINE = 0.4
# A single statement is cancelled a quarter of a second after its deadline; the rest is for a busy machine.
ENDED_SECONDS = 2.0
CALLS = 4


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("GetUser", id="reads_that_share_a_statement"),
        pytest.param("ListOrders", id="reads"),
        pytest.param("SearchUsers", id="expensive_reads"),
        pytest.param("UpdateUser", id="transactions"),
        pytest.param("ConfirmOrder", id="fast_path"),
        pytest.param("CreateOrder", id="fast_path_of_a_new_order"),
    ],
)
async def test_no_statement_runs_long_after_the_deadline_of_its_call(database_url: str, method: str) -> None:
    async with serving_clients(database_url) as clients, observing(database_url) as observer:
        user = await clients.create_user()
        orders = [await clients.create_order(user.id) for _ in range(CALLS)]
        requests: dict[str, Any] = {
            "GetUser": users_pb.GetUserRequest(id=user.id),
            "ListOrders": orders_pb.ListOrdersRequest(user_id=user.id),
            "SearchUsers": users_pb.SearchUsersRequest(query="ada"),
            "UpdateUser": users_pb.UpdateUserRequest(user=User(id=user.id, full_name="Ada")),
            "ConfirmOrder": orders_pb.ConfirmOrderRequest(id=orders[0].id),
            "CreateOrder": orders_pb.CreateOrderRequest(order=new_order(user.id)),
        }
        request = requests[method].SerializeToString()
        stub: Any = clients.channel.unary_unary(path_of(method))
        pids = await observer.backends()
        async with holding(database_url, "LOCK TABLE users, orders IN ACCESS EXCLUSIVE MODE"):
            calls = [asyncio.ensure_future(stub(request, timeout=DEADLINE)) for _ in range(CALLS)]
            await eventually(lambda: observer.backends(waiting=True))
            ended = await asyncio.gather(*calls, return_exceptions=True)
            codes = {error.code() for error in ended if isinstance(error, grpc.aio.AioRpcError)}
            assert (len(ended), codes) == (CALLS, {grpc.StatusCode.DEADLINE_EXCEEDED})

            async def none_waits() -> bool:
                return not await observer.backends(waiting=True)

            await eventually(none_waits, ENDED_SECONDS)
        # And the connections are used again.
        assert pids <= await observer.backends()
        assert await stub(requests[method].SerializeToString(), timeout=20) is not None
