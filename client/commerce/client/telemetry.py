"""Traces and metrics of calls, if the program uses OpenTelemetry. If it does not, nothing of it is imported."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from commerce.client.failures import CommerceError
    from commerce.client.methods import Method
    from commerce.client.otel import CallSpan, Instruments

_log = logging.getLogger("commerce.client")
# The part of the API that all others import.
_API = "opentelemetry.context"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where the spans and the metrics of a client go.

    Attributes:
        tracer_provider: takes the spans; None for the global one of OpenTelemetry.
        meter_provider: takes the metrics; None for the global one.
    """

    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None


class CallTelemetry:
    """Starts the spans of a client's calls.

    Args:
        telemetry: where they go.
        target: of the client's channel, as gRPC writes it.
    """

    def __init__(self, telemetry: Telemetry, target: str) -> None:
        self._telemetry, self._target = telemetry, target
        self._instruments: Instruments | None = None
        self._is_usable = True

    def start(self, method: Method[Any, Any]) -> CallSpan | None:
        """Start the span of a call, which the caller must end; None if telemetry is off or unavailable."""
        instruments = self._loaded()
        return None if instruments is None else instruments.start(method)

    def retried(self, method: Method[Any, Any], error: CommerceError) -> None:
        """Count a stream that is opened again after an error, each time with a span of its own."""
        instruments = self._loaded()
        if instruments is not None:
            instruments.count_retry(instruments.attributes(method), error)

    def _loaded(self) -> Instruments | None:
        # A program that has not imported it has not set up an SDK either. Its import would take longer than a call.
        if self._instruments is None and self._is_usable and _API in sys.modules:
            self._load()
        return self._instruments

    def _load(self) -> None:
        try:
            from commerce.client.otel import Instruments

            # Two threads may do this, with the same result.
            self._instruments = Instruments(self._telemetry, self._target)
        except (ImportError, TypeError):
            self._is_usable = False
            _log.warning("this version of the OpenTelemetry API cannot be used: no spans and metrics", exc_info=True)


def call_telemetry(telemetry: Telemetry | bool, target: str) -> CallTelemetry | None:
    """Return what starts the spans of a client's calls; None if there are none."""
    if telemetry is False:
        return None
    return CallTelemetry(Telemetry() if telemetry is True else telemetry, target)
