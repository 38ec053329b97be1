"""The `commerce relay` command."""

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from service.cli.running import load_and_log, one_line_errors, run
from service.config import RelaySettings

if TYPE_CHECKING:
    from service.relay import Relay


def relay(*, nats_url: str | None, stream: str | None, name: str | None) -> None:
    """Publish events to NATS JetStream until SIGTERM or Ctrl-C."""
    with one_line_errors():
        settings = load_and_log(RelaySettings, nats_url=nats_url, relay_stream=stream, relay_name=name)
        try:
            from service.relay import Relay, RelayError  # noqa: PLC0415 - nats-py is an optional dependency
        except ImportError as error:
            raise click.ClickException("nats-py is not installed: pip install 'commerce-service[relay]'") from error
        try:
            run(_relay(Relay(settings)))
        except RelayError as error:
            raise click.ClickException(str(error)) from error


async def _relay(relay: "Relay") -> None:
    try:
        await relay.check()
        publishing = asyncio.create_task(relay.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, publishing.cancel)
        # Cancelling it loses nothing: the next relay starts from the stored cursor.
        with suppress(asyncio.CancelledError):
            await publishing
    finally:
        await relay.close()
