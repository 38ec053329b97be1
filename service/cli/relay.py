"""The `commerce relay` command."""

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from service.cli.running import one_line_errors, run
from service.config import LogSettings, RelaySettings, load
from service.observability.logs import configure_logging

if TYPE_CHECKING:
    from service.relay import Relay


@click.command()
@click.option("--nats-url", help="NATS server to publish to, instead of COMMERCE_NATS_URL.")
@click.option(
    "--stream", help="JetStream stream, instead of COMMERCE_RELAY_STREAM (commerce); created if it does not exist."
)
@click.option("--name", help="Name of the cursor, instead of COMMERCE_RELAY_NAME (nats).")
def relay(*, nats_url: str | None, stream: str | None, name: str | None) -> None:
    """Publish events to NATS JetStream as CloudEvents, until SIGTERM or Ctrl-C.

    Publishes every event at least once, and the events of each user or order in sequence. If several relays have the
    same name, one of them publishes, and another takes over when that one ends.
    """
    with one_line_errors():
        configure_logging(load(LogSettings))
        settings = load(RelaySettings, nats_url=nats_url, relay_stream=stream, relay_name=name)
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
