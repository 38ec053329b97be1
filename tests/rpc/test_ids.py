"""UUIDs in requests: however their letters are written, they are the same ids."""

import re
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderItem

from service.rpc.messages.ids import ids_in_lower_case
from tests.support.clients import Clients
from tests.support.methods import MUTATIONS, READS, call_bytes, response_class
from tests.support.requests import GOOD_REQUESTS

UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def capitals(request: bytes) -> bytes:
    """Return a request with all its UUIDs in capitals, which are as long as before."""
    return UUID.sub(lambda match: match[0].upper(), request)


@pytest.mark.parametrize("method", MUTATIONS)
async def test_a_write_is_repeated_with_its_ids_in_capitals(clients: Clients, method: str) -> None:
    request = await GOOD_REQUESTS[method](clients)
    request.request_id = f"a{str(uuid4())[1:]}"
    first = request.SerializeToString()
    again = capitals(first)
    assert again != first
    response = await call_bytes(clients.channel, method, first)
    assert await call_bytes(clients.channel, method, again) == response


@pytest.mark.parametrize(
    "method", [method for method in READS if method not in {"ListUsers", "ListTags", "SearchUsers"}]
)
async def test_a_read_finds_the_same_with_its_ids_in_capitals(clients: Clients, method: str) -> None:
    request = await GOOD_REQUESTS[method](clients)
    data = request.SerializeToString()
    response = await call_bytes(clients.channel, method, data)
    in_capitals = await call_bytes(clients.channel, method, capitals(data))
    assert response_class(method).FromString(in_capitals) == response_class(method).FromString(response)


async def test_a_page_token_is_for_the_same_user_in_capitals(clients: Clients) -> None:
    user = await clients.create_user()
    for _ in range(2):
        await clients.create_order(user.id)
    first = await clients.orders.ListOrders(pb.ListOrdersRequest(user_id=user.id, page_size=1))
    again = pb.ListOrdersRequest(user_id=user.id.upper(), page_size=1, page_token=first.next_page_token)
    assert len((await clients.orders.ListOrders(again)).orders) == 1


def test_only_uuids_change() -> None:
    lower, upper = f"a{str(uuid4())[1:]}", f"B{str(uuid4())[1:].upper()}"
    request = pb.CreateOrderRequest(
        request_id=upper,
        order=Order(user_id=upper, external_ref=upper, metadata={upper: upper}, items=[OrderItem(product_id=upper)]),
    )
    expected = pb.CreateOrderRequest()
    expected.CopyFrom(request)
    expected.request_id = expected.order.user_id = upper.lower()
    ids_in_lower_case(request.DESCRIPTOR)(request)
    assert request == expected
    batch = pb.BatchGetOrdersRequest(ids=[lower, upper])
    ids_in_lower_case(batch.DESCRIPTOR)(batch)
    assert batch.ids == [lower, upper.lower()]


def test_an_absent_message_stays_absent() -> None:
    request = pb.CreateOrderRequest()
    ids_in_lower_case(request.DESCRIPTOR)(request)
    assert not request.HasField("order")
