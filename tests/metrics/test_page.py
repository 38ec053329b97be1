"""The page of metrics of a real server that is used."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.common.v1.error_reason_pb2 import ErrorReason
from google.protobuf import descriptor_pool
from grpc_health.v1.health_pb2 import HealthCheckRequest

from service.observability.metrics.catalogue import FAMILIES
from service.server import SERVICES, Server
from tests.support.clients import Clients, connect, new_order
from tests.support.databases import cloned
from tests.support.metrics_pages import Page, read_page
from tests.support.passwords import PASSWORD
from tests.support.servers import running_server
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "canary"


@dataclass(frozen=True)
class Used:
    """A server that has been used, and its page afterwards."""

    server: Server
    clients: Clients
    page: Page


def of(method: str) -> dict[str, str]:
    service = "orders.v1.OrderService" if "Order" in method else "users.v1.UserService"
    return {"grpc_service": f"commerce.{service}", "grpc_method": method}


async def fails(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


@pytest.fixture(scope="module")
async def used(postgres_url: str, template_url: str) -> AsyncIterator[Used]:
    async with (
        cloned(postgres_url, template_url) as url,
        running_server(url, metrics_port=0) as server,
        connect(server.port) as clients,
    ):
        user = await clients.create_user(email=f"{CANARY}@example.com", full_name=CANARY)
        traced = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
        for _ in range(3):
            await clients.users.GetUser(users_pb.GetUserRequest(id=user.id), metadata=traced)
        await fails(clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4()))))
        await fails(clients.users.GetUser(users_pb.GetUserRequest(id=CANARY)))
        for path in (f"/commerce.users.v1.UserService/{CANARY}", f"/{CANARY}/{CANARY}"):
            unknown: Any = clients.channel.unary_unary(path)
            await fails(unknown(b""))
        request = orders_pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
        orders = [(await clients.orders.CreateOrder(request)).order for _ in range(2)]
        assert orders[0] == orders[1]
        update = users_pb.UpdateUserRequest(user=user)
        update.user.full_name = "Ada"
        await clients.users.UpdateUser(update)
        await clients.orders.ListOrders(orders_pb.ListOrdersRequest(user_id=user.id, include_total_size=True))
        await clients.health.Check(HealthCheckRequest())
        await clients.users.VerifyPassword(users_pb.VerifyPasswordRequest(email=user.email, password=PASSWORD))
        for _ in range(2):
            async with watch_orders(clients, now=True) as watch:
                await watch.checkpoint()
                await clients.create_order(user.id)
                await watch.events(1)
                assert (await read_page(server.metrics_port)).total("commerce_event_watchers", state="live") == 1
        await eventually(lambda: calls_ended(server, "WatchOrders", 2))
        yield Used(server, clients, await read_page(server.metrics_port))


async def calls_ended(server: Server, method: str, count: int) -> bool:
    return (await read_page(server.metrics_port)).total("grpc_server_handled_total", grpc_method=method) == count


def test_calls_are_counted_by_code_and_reason(used: Used) -> None:
    handled = used.page.values("grpc_server_handled_total", grpc_type="unary", **of("GetUser"))
    assert handled == {("OK", ""): 3, ("NOT_FOUND", "USER_NOT_FOUND"): 1, ("INVALID_ARGUMENT", "INVALID_FIELD"): 1}
    assert used.page.total("grpc_server_started_total", **of("GetUser")) == 5
    assert used.page.total("grpc_server_handling_seconds_count", **of("GetUser")) == 5
    assert used.page.total("grpc_server_msg_received_total", **of("GetUser")) == 5
    assert used.page.total("grpc_server_msg_sent_total", **of("GetUser")) == 3
    assert used.page.total("commerce_calls_running") == 0


def test_methods_that_do_not_exist_share_one_label(used: Used) -> None:
    labels = {"grpc_service": "unknown", "grpc_method": "unknown"}
    assert used.page.values("grpc_server_handled_total", grpc_type="unary", **labels) == {
        ("OK", ""): 0,
        ("UNIMPLEMENTED", ""): 2,
    }


def test_the_buckets_name_traces_that_are_sampled(used: Used) -> None:
    exemplars = [
        sample.exemplar
        for sample in used.page.samples
        if sample.name == "grpc_server_handling_seconds_bucket" and sample.exemplar
    ]
    assert exemplars
    assert {exemplar.labels["trace_id"] for exemplar in exemplars} == {TRACE}


def test_a_repeated_request_is_one_commit(used: Used) -> None:
    assert used.page.total("commerce_request_id_replays_total", **of("CreateOrder")) == 1
    assert used.page.values("commerce_calls_committed_total", **of("CreateOrder")) == {("fast_path",): 3}
    assert used.page.values("commerce_calls_committed_total", **of("UpdateUser")) == {("transaction",): 1}
    assert used.page.total("commerce_call_attempts_total", **of("UpdateUser")) == 1


def test_messages_of_streams_are_counted(used: Used) -> None:
    # A checkpoint and an event, at least.
    assert used.page.total("grpc_server_msg_sent_total", **of("WatchOrders")) >= 4
    assert used.page.total("grpc_server_msg_received_total", **of("WatchOrders")) == 2
    codes = used.page.values("grpc_server_handled_total", grpc_type="server_stream", **of("WatchOrders"))
    assert codes[("CANCELLED", "")] == 2


def test_statements_are_measured_by_name(used: Used) -> None:
    counts = used.page.values("commerce_db_statement_seconds_count")
    assert counts[("users_by_ids",)] >= 1
    assert {("begin",), ("commit",), ("insert_users",), ("update_users",)} <= counts.keys()
    assert used.page.total("commerce_batch_size_count", batch="users_by_ids") >= 1


def test_the_pool_is_shown(used: Used) -> None:
    sizes = used.page.values("commerce_db_pool_size")
    assert sizes[("calls",)] == 10
    assert {("transactions",), ("search",), ("statistics",), ("count",), ("events",)} <= sizes.keys()
    assert used.page.total("commerce_db_pool_in_use", pool="calls") == 0
    assert used.page.total("commerce_db_connections_open", pool="calls") >= 4


def test_the_process_is_shown(used: Used) -> None:
    page = used.page
    assert page.total("process_resident_memory_bytes") > 10_000_000
    assert page.total("process_open_fds") > 10
    assert page.total("process_cpu_seconds_total") > 0
    assert page.values("commerce_ready") == {(): 1}
    assert page.values("commerce_draining") == {(): 0}
    assert page.total("commerce_password_seconds_count") == 2


def test_every_metric_is_in_the_catalogue_and_has_help(used: Used) -> None:
    for family in used.page.families.values():
        known = FAMILIES[family.name]
        assert family.documentation == known.words
        assert family.type == known.kind
        assert family.samples


def test_labels_have_few_values(used: Used) -> None:
    pool = descriptor_pool.Default()
    methods = {(name, method.name) for name in SERVICES for method in pool.FindServiceByName(name).methods}
    reasons = {"", *(name.removeprefix("ERROR_REASON_") for name in list(ErrorReason.keys()))}
    codes = {code.name for code in grpc.StatusCode}
    others: dict[str, set[str]] = {}
    for family in used.page.families.values():
        assert {label for sample in family.samples for label in sample.labels} <= {*FAMILIES[family.name].labels, "le"}
        for sample in family.samples:
            labels = dict(sample.labels)
            if service := labels.pop("grpc_service", None):
                method = labels.pop("grpc_method")
                assert (service, method) in methods or service.startswith(("grpc.", "unknown"))
            assert labels.pop("reason", "") in reasons
            assert labels.pop("grpc_code", "OK") in codes
            labels.pop("le", None)
            for label, value in labels.items():
                others.setdefault(label, set()).add(value)
    assert {label: len(values) for label, values in others.items() if len(values) > 12} == {
        "statement": len(others["statement"])
    }
    assert len(others["statement"]) < 40


def test_nothing_that_clients_send_is_on_the_page(used: Used) -> None:
    for text in (CANARY, "SELECT", "@", PASSWORD, "Ada"):
        assert text not in used.page.text


async def test_the_older_format_is_for_who_does_not_ask_for_openmetrics(used: Used) -> None:
    older = await read_page(used.server.metrics_port, accept="text/plain")
    assert older.total("grpc_server_handled_total", **of("GetUser")) == 5
    assert "# EOF" not in older.text


async def test_without_a_port_nothing_is_counted(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        await clients.create_user()
        assert server.metrics is None
        assert server.metrics_port == 0
