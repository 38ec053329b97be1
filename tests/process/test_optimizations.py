"""The switches of the optimizations: a server without them is a complete service."""

import asyncio
from typing import Any

import commerce.orders.v1.order_service_pb2 as pb
import pytest
import uvloop

from service.config import OptimizationSettings, load
from service.rpc.transport.event_loop import EventLoop
from service.server import new_event_loop
from tests.support.clients import connect
from tests.support.processes import serving

PLAIN: dict[str, Any] = {
    "fast_path": False,
    "batched_reads": False,
    "encoded_messages": False,
    "held_connection": False,
    "event_loop": "asyncio",
    "accept_mode": "listeners",
    "pending_accepts": 1,
    "scheduling": "normal",
    "frozen_garbage_collector": False,
    "batched_log_lines": False,
}


async def test_a_server_without_optimizations_gives_the_same_answers(database_url: str) -> None:
    async with serving(database_url, **PLAIN) as process, connect(await process.port()) as clients:
        assert (await process.until_logged("serving"))["accept_mode"] == "listeners"
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        confirmed = (await clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id))).order
        assert (await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order == confirmed


@pytest.mark.parametrize(
    ("event_loop", "accept_mode", "expected"),
    [
        ("auto", "calls", EventLoop),
        ("auto", "listeners", uvloop.Loop),
        ("uvloop", "calls", uvloop.Loop),
        ("asyncio", "calls", asyncio.SelectorEventLoop),
    ],
)
def test_the_event_loop_is_the_one_of_the_settings(event_loop: str, accept_mode: str, expected: type) -> None:
    settings = load(OptimizationSettings, event_loop=event_loop, accept_mode=accept_mode)
    loop = new_event_loop(settings)
    loop.close()
    assert type(loop) is expected
