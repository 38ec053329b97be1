"""The parent of several processes that serve on one port."""

import asyncio
import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import structlog

from service.cli.running import run
from service.config import ServerSettings
from service.rpc.transport.shared_port import reserved_port
from service.runtime.exit_deadline import drain_seconds
from service.runtime.stop_signals import StopSignals
from service.runtime.worker import Worker
from service.runtime.workers import Workers, WorkersFailed

# -P: without the current directory, which could have another package of this name.
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
        await _workers(settings, ports).run(lambda pids: _log_ready(settings, ports, pids), signals)
        return
    # Only in development, because it imports the protos.
    from service.cli.development import stopping_with_owner, welcome  # noqa: PLC0415

    def on_ready(pids: list[int]) -> None:
        _log_ready(settings, ports, pids)
        welcome(settings, ports["port"], ports.get("http_port", 0), data_dir)

    task: dict[str, object] = {
        **ports,
        "console": settings.console,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "max_connection_age": settings.max_connection_age,
        "shutdown_grace": settings.shutdown_grace,
        "policy_file": settings.policy_file and str(settings.policy_file),
    }
    async with stopping_with_owner(data_dir):
        await _workers(settings, task).run(on_ready, signals)


def _workers(settings: ServerSettings, values: Mapping[str, object]) -> Workers:
    # All other settings are read by each worker, so that one that is started later gets secrets from files anew.
    task = {"host": settings.host, "reuse_port": True, **values}

    def start(number: int) -> Worker:
        return Worker(number, [*_COMMAND, str(number)], task)

    seconds = drain_seconds(settings.max_connection_age, settings.shutdown_grace)
    return Workers(settings.workers, start, drain_seconds=seconds)


def _log_ready(settings: ServerSettings, ports: Mapping[str, int], pids: list[int]) -> None:
    log.info("serving with workers", host=settings.host, **ports, workers=pids)
