"""The `commerce relay` command."""

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import structlog

from service.cli.running import load_and_log, one_line_errors, run
from service.config import RelaySettings
from service.http.loading_metrics import MetricsUnavailable, listening_metrics_port
from service.rpc.transport.exposure import Exposed, require_metrics_protection

if TYPE_CHECKING:
    from service.relay import Relay

log = structlog.get_logger()


def relay(*, nats_url: str | None, stream: str | None, name: str | None) -> None:
    """Publish events to NATS JetStream until SIGTERM or Ctrl-C."""
    with one_line_errors():
        settings = load_and_log(RelaySettings, nats_url=nats_url, relay_stream=stream, relay_name=name)
        try:
            from service.relay import Relay, RelayError  # noqa: PLC0415 - nats-py is an optional dependency
        except ImportError as error:
            raise click.ClickException("nats-py is not installed: pip install 'commerce-service[relay]'") from error
        try:
            run(_relay(Relay(settings), settings))
        except (Exposed, MetricsUnavailable, RelayError) as error:
            raise click.ClickException(str(error)) from error


async def _relay(relay: "Relay", settings: RelaySettings) -> None:
    require_metrics_protection(settings)
    port = None
    try:
        await relay.check()
        if settings.metrics_port is not None:
            port = await listening_metrics_port(settings, relay.take)
            relay.measure()
            log.info("serving metrics", port=port.port)
        publishing = asyncio.create_task(relay.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, publishing.cancel)
        # Cancelling it loses nothing: the next relay starts from the stored cursor.
        with suppress(asyncio.CancelledError):
            await publishing
    finally:
        if port:
            await port.close()
        await relay.close()
