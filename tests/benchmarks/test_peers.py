"""The peers that benchmarks compare with behave like the service; otherwise the comparison would be meaningless."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from google.protobuf.json_format import ParseDict

from benchmarks.data import Data, fill
from tests.support.clients import Clients, connect, new_order
from tests.support.databases import cloned, driver_connection
from tests.support.paths import ROOT
from tests.support.processes import free_port, running_program
from tests.support.servers import serving_clients
from tests.support.waiting import eventually

DATA = Data(users=200, orders=400)
NODE = ROOT / "benchmarks" / "peers" / "node"
COMMANDS = {
    "bare": (sys.executable, "-m", "benchmarks.peers.bare"),
    "guide": (sys.executable, "-m", "benchmarks.peers.guide"),
    "node": ("node", str(NODE / "server.js")),
}
REGULAR = DATA.user_id(1)
DELETED = DATA.user_id(5)
WITHOUT_PROFILE = DATA.user_id(6)
# Columns that differ between any two orders, and columns that only the service writes.
OWN = {"id", "order_id", "aggregate_id", "order_number", "create_time", "update_time", "position", "xid"}
OWN |= {"message"}


@pytest.fixture(scope="module")
async def url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """URL of a filled database, in which some rows are edited to differ from the others."""
    async with cloned(postgres_url, template_url) as url:
        await fill(url, DATA.users, DATA.orders)
        async with driver_connection(url) as connection:
            await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", WITHOUT_PROFILE)
            await connection.execute(
                "UPDATE orders SET external_ref = 'mine', metadata = '{\"k\": \"v\"}' WHERE id = $1", regular_order(1)
            )
        yield url


@pytest.fixture(scope="module")
async def service(url: str) -> AsyncIterator[Clients]:
    """Stubs of the service."""
    async with serving_clients(url) as clients:
        await clients.users.DeleteUser(users_pb.DeleteUserRequest(id=DELETED))
        tags = ["late", "gift"]
        await clients.orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=regular_order(2), tags=tags))
        yield clients


@pytest.fixture(scope="module", params=COMMANDS)
async def peer(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Clients]:
    """Stubs of a peer."""
    if request.param == "node":
        if shutil.which("node") is None:
            pytest.skip("Node.js is not installed")
        if not (NODE / "node_modules").is_dir():
            pytest.skip("the npm packages of benchmarks/peers/node are not installed: run make peers")
    async with started(*COMMANDS[request.param], url=url) as port, connect(port) as clients:
        yield clients


@asynccontextmanager
async def started(*command: str, url: str, end_status: int = 0) -> AsyncIterator[int]:
    """Run a peer until the block ends, yield its port, and check that it exits on SIGTERM."""
    port = free_port()
    environment = {**os.environ, "DATABASE_URL": url, "PORT": str(port)}
    async with running_program(*command, environment=environment) as process:

        async def accepts() -> bool:
            assert process.running, process.stderr()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await eventually(accepts)
        yield port
        result = await process.terminate()
        assert result.status == end_status, result.stderr


def regular_order(newest: int) -> str:
    return DATA.order_id(DATA.order_of_regular(1, newest))


async def stored(url: str, order_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of an order, without the columns that differ between any two orders."""
    queries = {
        "orders": "SELECT * FROM orders WHERE id = $1",
        "order_items": "SELECT * FROM order_items WHERE order_id = $1 ORDER BY id",
        "events": "SELECT * FROM events WHERE aggregate_id = $1 ORDER BY position",
    }
    found: dict[str, list[dict[str, Any]]] = {}
    async with driver_connection(url) as connection:
        for table, query in queries.items():
            rows = [dict(row) for row in await connection.fetch(query, order_id)]
            assert all(UUID(str(row["id"])).version == 7 for row in rows)
            found[table] = [{name: value for name, value in row.items() if name not in OWN} for row in rows]
        number = await connection.fetchval("SELECT order_number FROM orders WHERE id = $1", order_id)
        assert int(number.removeprefix("ORD-")) > DATA.orders
    return found


def shared(order: Order) -> Order:
    """Return an order without the fields that differ between any two orders."""
    copy = Order()
    copy.CopyFrom(order)
    for field in ("id", "order_number", "create_time", "update_time"):
        copy.ClearField(field)
    for item in copy.items:
        item.ClearField("id")
    return copy


def to_place(**fields: Any) -> Order:
    return new_order(DATA.user_id(7), external_ref=str(uuid4()), metadata={"a": "b"}, **fields)


@pytest.mark.parametrize("user_id", [REGULAR, DELETED, WITHOUT_PROFILE])
async def test_a_peer_returns_a_user_as_the_service_does(service: Clients, peer: Clients, user_id: str) -> None:
    request = users_pb.GetUserRequest(id=user_id)
    assert await peer.users.GetUser(request) == await service.users.GetUser(request)


async def test_a_peer_returns_many_users_as_the_service_does(service: Clients, peer: Clients) -> None:
    ids = [DATA.user_id(user) for user in (100, 3, 5, 6, 3, *range(1, 90))]
    request = users_pb.BatchGetUsersRequest(ids=ids)
    assert await peer.users.BatchGetUsers(request) == await service.users.BatchGetUsers(request)


async def test_a_peer_lists_orders_as_the_service_does(service: Clients, peer: Clients) -> None:
    pages: list[list[orders_pb.ListOrdersResponse]] = []
    for clients in (service, peer):
        pages.append([])
        request = orders_pb.ListOrdersRequest(user_id=REGULAR, page_size=40)
        while not pages[-1] or request.page_token:
            page = await clients.orders.ListOrders(request)
            request.page_token = page.next_page_token
            page.next_page_token = ""
            pages[-1].append(page)
    assert [len(page.orders) for page in pages[0]] == [40, 40, 20]
    assert {order.status for page in pages[0] for order in page.orders} == {1, 2, 3, 4, 5, 6}
    assert pages[0] == pages[1]


async def test_a_peer_stores_an_order_as_the_service_does(service: Clients, peer: Clients, url: str) -> None:
    placed = to_place()
    mine = (await service.orders.CreateOrder(orders_pb.CreateOrderRequest(order=placed))).order
    # The reference is unique within a user.
    placed.external_ref = f"{mine.external_ref}2"
    theirs = (await peer.orders.CreateOrder(orders_pb.CreateOrderRequest(order=placed))).order
    assert theirs == (await service.orders.GetOrder(orders_pb.GetOrderRequest(id=theirs.id))).order
    theirs.external_ref = mine.external_ref
    assert shared(theirs) == shared(mine)
    rows, others = await stored(url, mine.id), await stored(url, theirs.id)
    assert others["orders"][0].pop("external_ref") == rows["orders"][0].pop("external_ref") + "2"
    assert others == rows


async def test_a_peer_places_one_order_for_a_repeated_request(service: Clients, peer: Clients, url: str) -> None:
    requests = [orders_pb.CreateOrderRequest(order=to_place(), request_id=str(uuid4())) for _ in range(2)]
    mine = await service.orders.CreateOrder(requests[0])
    answers = await asyncio.gather(*(peer.orders.CreateOrder(requests[1]) for _ in range(5)))
    answers.append(await peer.orders.CreateOrder(requests[1]))
    assert all(answer == answers[0] for answer in answers)
    query = "SELECT caller, method, response FROM request_ids WHERE request_id = $1"
    async with driver_connection(url) as connection:
        answered = [await connection.fetchrow(query, UUID(request.request_id)) for request in requests]
        count = "SELECT count(*) FROM orders WHERE external_ref = $1"
        assert await connection.fetchval(count, requests[1].order.external_ref) == 1
    assert answered[0][:2] == answered[1][:2]
    assert [orders_pb.CreateOrderResponse.FromString(row["response"]) for row in answered] == [mine, answers[0]]


async def test_a_peer_refuses_another_order_under_a_used_request_id(peer: Clients) -> None:
    request = orders_pb.CreateOrderRequest(order=to_place(), request_id=str(uuid4()))
    await peer.orders.CreateOrder(request)
    request.order.items[0].quantity += 1
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.orders.CreateOrder(request)


# The fixture `service` deletes the user.
@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("with_request_id", [False, True])
async def test_a_peer_places_no_order_for_a_user_who_is_deleted(
    peer: Clients, url: str, *, with_request_id: bool
) -> None:
    request_id = str(uuid4()) if with_request_id else ""
    request = orders_pb.CreateOrderRequest(order=new_order(DELETED), request_id=request_id)
    async with driver_connection(url) as connection:
        everything = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM request_ids)"
        before = await connection.fetchrow(everything)
        with pytest.raises(grpc.aio.AioRpcError):
            await peer.orders.CreateOrder(request)
        assert await connection.fetchrow(everything) == before


async def test_a_peer_confirms_an_order_as_the_service_does(service: Clients, peer: Clients, url: str) -> None:
    orders = [await service.create_order(DATA.user_id(8)) for _ in range(2)]
    confirmed = [
        (await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))).order
        for clients, order in zip((service, peer), orders, strict=True)
    ]
    assert confirmed[1] == (await service.orders.GetOrder(orders_pb.GetOrderRequest(id=orders[1].id))).order
    assert shared(confirmed[1]) == shared(confirmed[0])
    assert confirmed[1].update_time.ToNanoseconds() > orders[1].update_time.ToNanoseconds()
    assert await stored(url, orders[1].id) == await stored(url, orders[0].id)
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=orders[1].id))


@pytest.fixture(scope="module")
async def fastapi_port(url: str) -> AsyncIterator[int]:
    """Port of the peer that uses JSON."""
    for package in ("fastapi", "uvicorn", "httptools"):
        pytest.importorskip(package)
    command = (sys.executable, "-m", "benchmarks.peers.fastapi_app")
    # uvicorn shuts down, and then ends itself with the signal that it received.
    async with started(*command, url=url, end_status=-signal.SIGTERM) as port:
        yield port


async def call_json(port: int, method: str, target: str, fields: object = None) -> tuple[int, Any]:
    """Return the status and the fields of a reply over HTTP/1.1."""

    def call() -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request(method, target, json.dumps(fields), {"Content-Type": "application/json"})
        response = connection.getresponse()
        try:
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    return await asyncio.to_thread(call)


def order_of(fields: dict[str, Any]) -> Order:
    """Return the message of an order with exactly these JSON fields."""
    currency = fields.pop("currency")

    def money(amount: str) -> dict[str, object]:
        return {"currency_code": currency, "units": int(Decimal(amount)), "nanos": int(Decimal(amount) % 1 * 10**9)}

    for item in fields["items"]:
        item["unit_price"], item["subtotal"] = money(item["unit_price"]), money(item["subtotal"])
    changed = {"status": f"ORDER_STATUS_{fields['status']}", "total_amount": money(fields["total_amount"])}
    return ParseDict(fields | changed, Order())


@pytest.mark.parametrize("user_id", [REGULAR, DELETED])
async def test_fastapi_returns_a_user_as_the_service_does(service: Clients, fastapi_port: int, user_id: str) -> None:
    status, fields = await call_json(fastapi_port, "GET", f"/users/{user_id}")
    found = ParseDict(fields | {"state": f"USER_STATE_{fields['state']}"}, User())
    assert (status, found) == (200, (await service.users.GetUser(users_pb.GetUserRequest(id=user_id))).user)


async def test_fastapi_lists_orders_as_the_service_does(service: Clients, fastapi_port: int) -> None:
    request = orders_pb.ListOrdersRequest(user_id=REGULAR, page_size=100)
    expected = list((await service.orders.ListOrders(request)).orders)
    target = f"/orders?user_id={REGULAR}&page_size=60"
    first = (await call_json(fastapi_port, "GET", target))[1]
    second = (await call_json(fastapi_port, "GET", f"{target}&page_token={first['next_page_token']}"))[1]
    assert (len(first["orders"]), second["next_page_token"]) == (60, "")
    assert [order_of(fields) for fields in first["orders"] + second["orders"]] == expected


@pytest.mark.parametrize("with_request_id", [False, True])
async def test_fastapi_stores_an_order_as_the_service_does(
    service: Clients, fastapi_port: int, url: str, *, with_request_id: bool
) -> None:
    placed = new_order(DATA.user_id(7), metadata={"a": "b"})
    items = [
        {"product_id": item.product_id, "name": item.name, "quantity": item.quantity, "unit_price": price}
        for item, price in zip(placed.items, ("10.5", "99", "0.01"), strict=True)
    ]
    fields: dict[str, Any] = {"user_id": placed.user_id, "currency": "EUR", "items": items, "metadata": {"a": "b"}}
    fields["request_id"] = str(uuid4()) if with_request_id else None
    mine = (await service.orders.CreateOrder(orders_pb.CreateOrderRequest(order=placed))).order
    status, answer = await call_json(fastapi_port, "POST", "/orders", fields)
    if with_request_id:
        assert (status, answer) == await call_json(fastapi_port, "POST", "/orders", fields)
    theirs = order_of(answer)
    assert (status, theirs) == (201, (await service.orders.GetOrder(orders_pb.GetOrderRequest(id=theirs.id))).order)
    assert shared(theirs) == shared(mine)
    assert await stored(url, theirs.id) == await stored(url, mine.id)


@pytest.mark.usefixtures("service")
async def test_fastapi_places_no_order_for_a_user_who_is_deleted(fastapi_port: int) -> None:
    item = {"product_id": "a", "name": "A", "quantity": 1, "unit_price": "1"}
    fields = {"user_id": DELETED, "currency": "EUR", "items": [item]}
    assert (await call_json(fastapi_port, "POST", "/orders", fields))[0] == 409
