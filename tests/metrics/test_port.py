"""The port for metrics: who is answered, and what clients that misbehave can take from others."""

import asyncio
import time
import urllib.error
from collections.abc import AsyncIterator

import pytest

from service.config import MetricsSettings, load
from service.http import metrics_port
from service.http.loading_metrics import MetricsUnavailable, listening_metrics_port
from service.http.metrics_port import MetricsPort
from service.observability.metrics import catalogue, page
from service.observability.metrics.page import PageWriter
from service.observability.metrics.snapshot import Snapshot
from service.rpc.transport.exposure import Exposed, require_metrics_protection
from tests.support.metrics_pages import OPEN_METRICS, read_page
from tests.support.waiting import eventually


class Taken:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> Snapshot:
        self.count += 1
        snapshot = Snapshot()
        snapshot.add(catalogue.WORKERS, self.count)
        return snapshot


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
async def port(taken: Taken) -> AsyncIterator[MetricsPort]:
    port = await listening_metrics_port(load(MetricsSettings, metrics_port=0), taken)
    yield port
    await port.close()


async def request(port: MetricsPort, text: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    writer.write(text.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer.decode()


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET /metrics", "localhost", 200),
        ("HEAD /metrics", "127.0.0.1:50090", 200),
        ("POST /metrics", "localhost", 405),
        ("GET /", "localhost", 404),
        # The name of a web page that lets it point to this machine.
        ("GET /metrics", "evil.example", 421),
    ],
)
async def test_only_the_page_is_served_and_only_to_this_machine(
    port: MetricsPort, line: str, host: str, status: int
) -> None:
    assert (await request(port, f"{line} HTTP/1.1\r\nhost: {host}\r\n\r\n")).startswith(f"HTTP/1.1 {status} ")


async def test_readers_that_come_together_share_a_page(port: MetricsPort, taken: Taken) -> None:
    pages = await asyncio.gather(*(read_page(port.port) for _ in range(10)))
    assert taken.count < 10
    assert all(found.total("commerce_workers") for found in pages)


async def test_pages_take_a_bounded_part_of_the_time(monkeypatch: pytest.MonkeyPatch, taken: Taken) -> None:
    async def encode(_snapshot: Snapshot, _accept: str) -> tuple[bytes, float]:
        return b"", 0.01

    monkeypatch.setattr(page, "encode", encode)
    writer = PageWriter(taken)
    began = time.monotonic()
    for _ in range(3):
        await writer.page(OPEN_METRICS)
    # Each but the last is followed by a rest of twenty times what it took.
    assert time.monotonic() - began > 0.4


async def test_what_other_tasks_take_while_a_page_is_written_is_not_the_time_of_the_page() -> None:
    snapshot = Snapshot()
    for number in range(100):
        snapshot.add(catalogue.STATEMENT_ROWS, number, f"statement_{number}")

    async def keep_busy() -> None:
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - another task that blocks the event loop
            await asyncio.sleep(0)

    busy = asyncio.create_task(keep_busy())
    began = time.monotonic()
    text, seconds = await page.encode(snapshot, OPEN_METRICS)
    busy.cancel()
    assert text.count(b"{statement=") == 100
    # Two children in each turn.
    assert time.monotonic() - began > 0.5
    assert 0 < seconds < 0.25


async def test_clients_that_neither_send_nor_read_are_few_and_do_not_stay(
    monkeypatch: pytest.MonkeyPatch, taken: Taken
) -> None:
    monkeypatch.setattr(metrics_port, "_TRANSFER_SECONDS", 0.2)
    port = await listening_metrics_port(load(MetricsSettings, metrics_port=0), taken)
    try:
        silent = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(20)]
        assert len(port._state.connections) <= 20  # noqa: SLF001
        for reader, _ in silent:
            # They are closed: those above the limit when they come, the others after a time.
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)
        for _, writer in silent:
            writer.close()
        await eventually(lambda: not port._state.connections)  # noqa: SLF001
        assert (await read_page(port.port)).total("commerce_workers")
    finally:
        await port.close()


async def test_a_page_that_cannot_be_written_says_nothing_of_the_cause() -> None:
    async def fail() -> Snapshot:
        raise ValueError("a secret")

    port = await listening_metrics_port(load(MetricsSettings, metrics_port=0), fail)
    try:
        with pytest.raises(urllib.error.HTTPError) as failure:
            await read_page(port.port)
        assert failure.value.code == 500
        assert b"secret" not in failure.value.read()
    finally:
        await port.close()


async def test_a_port_that_is_taken_is_named(port: MetricsPort, taken: Taken) -> None:
    with pytest.raises(MetricsUnavailable, match=f"cannot listen on 127.0.0.1:{port.port} for metrics"):
        await listening_metrics_port(load(MetricsSettings, metrics_port=port.port), taken)


def test_other_machines_read_metrics_only_if_a_setting_allows_it() -> None:
    require_metrics_protection(load(MetricsSettings, metrics_host="0.0.0.0"))  # noqa: S104 - without a port
    require_metrics_protection(load(MetricsSettings, metrics_port=0, metrics_host="::1"))
    with pytest.raises(Exposed, match="COMMERCE_METRICS_OPEN"):
        require_metrics_protection(load(MetricsSettings, metrics_port=0, metrics_host="0.0.0.0"))  # noqa: S104
    allowed = load(MetricsSettings, metrics_port=0, metrics_host="0.0.0.0", metrics_open=True)  # noqa: S104
    require_metrics_protection(allowed)
