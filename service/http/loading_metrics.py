"""Loads the port for metrics only if it is wanted, because its libraries are an extra and take memory."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from service.config import MetricsSettings
from service.observability.metrics.snapshot import Snapshot

if TYPE_CHECKING:
    from service.http.metrics_port import MetricsPort


class MetricsUnavailable(Exception):
    """The metrics cannot be served. The message is one line for an operator."""


async def listening_metrics_port(settings: MetricsSettings, take: Callable[[], Awaitable[Snapshot]]) -> "MetricsPort":
    """Return the port for metrics, which listens; the settings name one.

    Args:
        settings: where to listen.
        take: returns what the metrics are now.

    Raises:
        MetricsUnavailable: a library is missing, or the port cannot be listened on.
    """
    try:
        from service.http.metrics_port import MetricsPort
        from service.observability.metrics.page import PageWriter
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise MetricsUnavailable(
            f"COMMERCE_METRICS_PORT needs the package {package}: install commerce-service[metrics]"
        ) from error
    port = MetricsPort(settings, PageWriter(take))
    try:
        await port.listen()
    except OSError as error:
        address = f"{settings.metrics_host}:{settings.metrics_port}"
        raise MetricsUnavailable(
            f"cannot listen on {address} for metrics: the port is in use, or this machine does not have the address"
        ) from error
    return port
