"""The parent of several processes that serve on one port."""

import asyncio
import platform
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import structlog

from service.cli.running import run
from service.config import ServerSettings
from service.http.loading_metrics import MetricsUnavailable, listening_metrics_port
from service.observability.metrics.snapshot import Snapshot
from service.observability.metrics.workers import WorkersMetrics
from service.rpc.transport.exposure import Exposed, require_metrics_protection
from service.rpc.transport.shared_port import reserved_port
from service.runtime.exit_deadline import drain_seconds
from service.runtime.stop_signals import StopSignals
from service.runtime.worker import Worker
from service.runtime.workers import Workers, WorkersFailed

# -P: without the current directory, which could have another package of this name.
# How long the page waits for the report of a worker; then it has what the worker has reported before.
_REPORT_SECONDS = 0.5
_COMMAND = (sys.executable, "-P", "-m", "service", "worker")

log = structlog.get_logger()


def serve_with_workers(settings: ServerSettings, data_dir: Path | None) -> None:
    """Serve with workers; in development, with the database in `data_dir`, which this process runs.

    Raises:
        WorkersFailed: the address cannot be listened on, or the workers cannot be kept running.
    """
    if platform.system() != "Linux":
        raise WorkersFailed("only Linux distributes connections among several workers: set COMMERCE_WORKERS to 1")
    if settings.unix_socket:
        raise WorkersFailed(
            "connections to COMMERCE_UNIX_SOCKET cannot be distributed among several workers: unset it, or set"
            " COMMERCE_WORKERS to 1"
        )
    with ExitStack() as reserved:

        def reserve(host: str, port: int) -> int:
            try:
                return reserved.enter_context(reserved_port(host, port, shared=settings.reuse_port))
            except OSError as error:
                raise WorkersFailed(
                    f"cannot listen on {host}:{port}: the port is in use, or this machine does not have the address"
                ) from error

        ports = {"port": reserve(settings.host, settings.port)}
        if (second := settings.tls_port_without_client_certificates) is not None:
            ports["tls_port_without_client_certificates"] = reserve(settings.host, second)
        if settings.http_port is not None:
            ports["http_port"] = reserve(settings.http_host, settings.http_port)
        run(_serve(settings, ports, data_dir), asyncio.new_event_loop)


async def _serve(settings: ServerSettings, ports: Mapping[str, int], data_dir: Path | None) -> None:
    signals = StopSignals()
    if data_dir is None:
        async with _metrics_of(_workers(settings, ports), settings) as (workers, metrics_port):
            await workers.run(lambda pids: _log_ready(settings, ports, metrics_port, pids), signals)
        return
    # Only in development, because it imports the protos.
    from service.cli.development import Ports, stopping_with_owner, welcome  # noqa: PLC0415 - the parent uses little memory

    task: dict[str, object] = {
        **ports,
        "console": settings.console,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "max_connection_age": settings.max_connection_age,
        "shutdown_grace": settings.shutdown_grace,
        "policy_file": settings.policy_file and str(settings.policy_file),
    }
    async with (
        stopping_with_owner(data_dir),
        _metrics_of(_workers(settings, task), settings) as (workers, metrics_port),
    ):

        def on_ready(pids: list[int]) -> None:
            _log_ready(settings, ports, metrics_port, pids)
            welcome(settings, Ports(ports["port"], ports.get("http_port", 0), metrics_port), data_dir)

        await workers.run(on_ready, signals)


def _workers(settings: ServerSettings, values: Mapping[str, object]) -> tuple[Workers, WorkersMetrics | None]:
    # All other settings are read by each worker, so that one that is started later gets secrets from files anew.
    task = {
        "host": settings.host,
        "reuse_port": True,
        # So that a worker counts for the parent, and does not listen itself.
        "workers": settings.workers,
        "metrics_port": settings.metrics_port,
        **values,
    }

    def start(number: int) -> Worker:
        return Worker(number, [*_COMMAND, str(number)], task)

    metrics = None if settings.metrics_port is None else WorkersMetrics()
    seconds = drain_seconds(settings.max_connection_age, settings.shutdown_grace)
    return Workers(settings.workers, start, drain_seconds=seconds, reports=metrics), metrics


@asynccontextmanager
async def _metrics_of(
    found: tuple[Workers, WorkersMetrics | None], settings: ServerSettings
) -> AsyncIterator[tuple[Workers, int]]:
    """Serve the metrics of workers, if they are wanted, during the block; yields the workers and the port, or 0.

    Raises:
        WorkersFailed: the port cannot be listened on, or would be reached by others.
    """
    workers, metrics = found
    if metrics is None:
        yield workers, 0
        return

    async def take() -> Snapshot:
        await metrics.until_reported(workers.ask_for_reports, _REPORT_SECONDS)
        return metrics.snapshot()

    try:
        require_metrics_protection(settings)
        port = await listening_metrics_port(settings, take)
    except (Exposed, MetricsUnavailable) as error:
        raise WorkersFailed(str(error)) from error
    try:
        yield workers, port.port
    finally:
        await port.close()


def _log_ready(settings: ServerSettings, ports: Mapping[str, int], metrics_port: int, pids: list[int]) -> None:
    more = {"metrics_port": metrics_port} if metrics_port else {}
    log.info("serving with workers", host=settings.host, **ports, **more, workers=pids)
