"""A process that serves: by itself, or as one of several workers."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import click
import structlog

from service.cli.development import Ports, stopping_with_owner, welcome
from service.cli.running import one_line_errors, run
from service.config import LogSettings, ServerSettings, load
from service.observability.logs import configure_logging
from service.rpc.call_context import x_request_id
from service.runtime.stop_signals import StopSignals
from service.runtime.worker_channel import ParentChannel
from service.server import Server, new_event_loop

# How long a worker whose event loop is busy has to report its metrics; then it does not.
_REPORT_SECONDS = 1.0

log = structlog.get_logger()


def serve_here(settings: ServerSettings, data_dir: Path | None) -> None:
    """Serve in this process; in development, with the database in `data_dir`."""
    configure_logging(settings, call_id=x_request_id)
    run(_serve(settings, data_dir), partial(new_event_loop, settings))


async def _serve(settings: ServerSettings, data_dir: Path | None) -> None:
    signals = StopSignals()
    server = Server(settings)
    if not await signals.unless_stopped(server.start()):
        log.info("stopped while starting")
    elif data_dir is None:
        await server.wait_until_signalled(signals)
    else:
        welcome(settings, Ports(server.port, server.http_port, server.metrics_port), data_dir)
        async with stopping_with_owner(data_dir):
            exit_deadline = await server.wait_until_signalled(signals)
        # PostgreSQL stops after the server, and has a time limit of its own.
        exit_deadline.cancel()


def work(number: int, descriptor: int) -> None:
    """Serve as a worker, until SIGTERM or the end of the parent.

    Args:
        number: of the worker.
        descriptor: of the channel to the parent, which tells where to listen.
    """
    parent = ParentChannel(descriptor)
    # To the parent, it means to roll the workers.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with one_line_errors():
            values = parent.task()
            configure_logging(load(LogSettings), call_id=x_request_id, worker=number)
            settings = load(ServerSettings, **values)
            run(_work(settings, parent, number), partial(new_event_loop, settings))
    except click.ClickException as error:
        if parent.is_told:
            raise
        parent.report_failure(error.message)
        raise SystemExit(error.exit_code) from error


async def _work(settings: ServerSettings, parent: ParentChannel, number: int) -> None:
    # A service manager may send SIGTERM to all processes, and then the parent sends another.
    signals = StopSignals(repeatable=False)
    server = Server(settings, number)
    parent.stop_with_parent(server.exit_deadline, partial(_report, server, asyncio.get_running_loop()))
    if not await signals.unless_stopped(server.start()):
        log.info("stopped while starting")
        return
    parent.report_ready()
    await server.wait_until_signalled(signals)
    if server.metrics:
        # What was counted since the last one.
        parent.send_report(server.metrics.snapshot().to_json())


def _report(server: Server, loop: asyncio.AbstractEventLoop) -> bytes | None:
    """Return the metrics of a server, which runs in another thread; None if they are not wanted, or it is stuck."""
    if server.metrics is None:
        return None
    metrics = server.metrics
    taking = metrics.take()
    try:
        taken = asyncio.run_coroutine_threadsafe(taking, loop)
    except RuntimeError:
        # The event loop has been closed.
        taking.close()
        return None
    try:
        return taken.result(_REPORT_SECONDS).to_json()
    except TimeoutError:
        taken.cancel()
        return None
