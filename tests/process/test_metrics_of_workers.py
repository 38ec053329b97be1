"""One page for all workers: the parent of the workers serves it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest

from tests.support.clients import connect
from tests.support.databases import cloned
from tests.support.metrics_pages import Page, read_page
from tests.support.processes import Process, running_command
from tests.support.waiting import eventually

CALLS = 40


async def page_of(process: Process) -> Page:
    line = (await eventually(lambda: process.logged("serving with workers")))[0]
    return await read_page(line["metrics_port"])


@pytest.fixture(scope="module")
async def parent(postgres_url: str, template_url: str) -> AsyncIterator[Process]:
    settings: dict[str, Any] = {"workers": 2, "metrics_port": 0, "max_connection_age": 0, "shutdown_grace": 1}
    async with (
        cloned(postgres_url, template_url) as url,
        running_command("serve", "--port", "0", database_url=url, **settings) as process,
    ):
        await process.until_logged("serving with workers")
        yield process


async def call_both(parent: Process, *, before: float = 0) -> Page:
    """Make calls on connections of their own, and return the page that has all of them; `before` it had so many."""
    port = parent.logged("serving with workers")[0]["port"]

    async def calls() -> None:
        async with connect(port, own_connection=True) as clients:
            for _ in range(CALLS // 20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))

    await asyncio.gather(*(calls() for _ in range(20)))

    async def counted() -> Page | None:
        # A call that fails is counted when its client has been answered.
        page = await page_of(parent)
        return page if not_found(page) == before + CALLS else None

    page: Page = await eventually(counted)
    return page


def not_found(page: Page) -> float:
    return page.total("grpc_server_handled_total", grpc_method="GetUser", reason="USER_NOT_FOUND")


async def test_the_counts_of_all_workers_are_added_and_stay_after_one_is_killed(parent: Process) -> None:
    page = await call_both(parent)
    assert page.total("commerce_db_pool_size", pool="calls") == 20
    assert {worker for (worker,) in page.values("process_resident_memory_bytes")} == {"1", "2", "parent"}
    assert page.values("commerce_ready") == {("1",): 1, ("2",): 1}
    assert page.total("commerce_worker_starts_total") == 2
    workers = parent.logged("serving with workers")[0]["workers"]
    os.kill(workers[0], signal.SIGKILL)
    await eventually(lambda: parent.logged("worker replaced"))
    page = await page_of(parent)
    assert not_found(page) == CALLS
    assert page.total("commerce_workers") == 2
    assert page.total("commerce_worker_starts_total") == 3
    await call_both(parent, before=CALLS)


async def test_what_a_worker_counts_until_it_ends_in_order_is_kept(parent: Process) -> None:
    before = not_found(await page_of(parent))
    await call_both(parent, before=before)
    parent.send(signal.SIGHUP)
    await eventually(lambda: parent.logged("rolled the workers"))
    page = await page_of(parent)
    assert not_found(page) == before + CALLS
    assert page.total("commerce_workers") == 2


async def test_a_worker_that_is_stuck_does_not_hold_up_the_page(parent: Process) -> None:
    before = not_found(await page_of(parent))
    worker = parent.logged("worker replaced")[-1]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        page = await page_of(parent)
        assert not_found(page) == before
        ages = await eventually(lambda: old_report(parent))
        assert len(ages) == 2
    finally:
        os.kill(worker, signal.SIGCONT)


async def old_report(parent: Process) -> dict[tuple[str, ...], float]:
    ages = (await page_of(parent)).values("commerce_worker_report_age_seconds")
    return ages if max(ages.values()) > 2 else {}
