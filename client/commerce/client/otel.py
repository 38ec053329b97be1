"""Spans and metrics of calls, as OpenTelemetry's semantic conventions for RPC name them (version 1.45.0).

A span is a call with all its attempts, and its duration is a measurement of `rpc.client.call.duration`. An attempt that
failed and is repeated is an event of the span, and counted. Neither has anything of requests, responses, metadata or
messages of errors: they can contain personal data.
"""

from __future__ import annotations

import asyncio
import re
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from commerce.client.failures import CommerceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from opentelemetry.util.types import AttributeValue

    from commerce.client.methods import Method
    from commerce.client.options import Metadata
    from commerce.client.telemetry import Telemetry

_NAME = "commerce.client"
_SCHEMA = "https://opentelemetry.io/schemas/1.45.0"
# Of the conventions, for all durations of calls.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_CANCELLED = "CANCELLED"
_API_MODULES = ("opentelemetry.trace", "opentelemetry.metrics")


class Instruments:
    """The tracer and the metrics of a client.

    Args:
        telemetry: has the providers.
        target: of the channel, as gRPC writes it.
    """

    def __init__(self, telemetry: Telemetry, target: str) -> None:
        self._telemetry, self._has_sdk = telemetry, False
        own = _version()
        self.tracer = trace.get_tracer(_NAME, own, telemetry.tracer_provider, _SCHEMA)
        meter = metrics.get_meter(_NAME, own, telemetry.meter_provider, _SCHEMA)
        self.durations = meter.create_histogram(
            "rpc.client.call.duration",
            unit="s",
            description="The duration of calls, each with all its attempts.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._retries = meter.create_counter(
            "commerce.client.retries", unit="{retry}", description="Attempts of calls after the first."
        )
        self._server = server_attributes(target)
        self._attributes: dict[str, Mapping[str, AttributeValue]] = {}

    def start(self, method: Method[Any, Any]) -> CallSpan | None:
        """Start the span of a call; None if there is no SDK that takes it, and no context to pass on."""
        if self._has_sdk or self._finds_sdk() or context.get_current():
            return CallSpan(self, self.attributes(method))
        return None

    def _finds_sdk(self) -> bool:
        """Return whether one of the providers is not the API's own, which does nothing."""
        # They can be set once, at any time.
        providers = (
            self._telemetry.tracer_provider or trace.get_tracer_provider(),
            self._telemetry.meter_provider or metrics.get_meter_provider(),
        )
        self._has_sdk = any(not type(provider).__module__.startswith(_API_MODULES) for provider in providers)
        return self._has_sdk

    def attributes(self, method: Method[Any, Any]) -> Mapping[str, AttributeValue]:
        """Return what is known of a call before it is sent."""
        found = self._attributes.get(method.path)
        if found is None:
            found = {"rpc.system.name": "grpc", "rpc.method": method.path[1:], **self._server}
            self._attributes[method.path] = found
        return found

    def count_retry(self, attributes: Mapping[str, AttributeValue], error: CommerceError) -> None:
        """Count an attempt that follows one that failed."""
        self._retries.add(1, {**attributes, "error.type": error.code.name})


class CallSpan:
    """The span of a call that runs. `with` ends it."""

    __slots__ = ("_attributes", "_began", "_has_ended", "_instruments", "_metadata", "_retries", "_span")

    def __init__(self, instruments: Instruments, attributes: Mapping[str, AttributeValue]) -> None:
        self._instruments, self._attributes = instruments, attributes
        self._retries, self._has_ended = 0, False
        name = str(attributes["rpc.method"])
        self._span = instruments.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(self._span))
        # gRPC refuses other keys and values, and with them the call.
        self._metadata = tuple(
            (key.lower(), value) for key, value in carrier.items() if value.isascii() and value.isprintable()
        )
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def added_to(self, metadata: Metadata) -> Metadata:
        """Return the metadata of a call with that of the span, except what the caller has set itself."""
        given = {key for key, _ in metadata}
        return (*metadata, *(pair for pair in self._metadata if pair[0] not in given))

    def retried(self, error: CommerceError, seconds: float) -> None:
        """Say that an attempt failed, and that another one follows in some seconds."""
        self._retries += 1
        self._instruments.count_retry(self._attributes, error)
        if self._span.is_recording():
            event: dict[str, AttributeValue] = {
                "rpc.status_code": error.code.name,
                "error.type": error.code.name,
                "commerce.retry.attempt": self._retries,
                "commerce.retry.delay": round(seconds, 3),
            }
            if error.reason:
                event["commerce.error.reason"] = error.reason
            self._span.add_event("retry", event)

    def end(self, error: BaseException | None = None) -> None:
        """End the span. Only the first end counts."""
        if self._has_ended:
            return
        self._has_ended = True
        result: dict[str, AttributeValue] = {}
        if error is None:
            result["rpc.status_code"] = "OK"
        elif isinstance(error, CommerceError):
            result["rpc.status_code"] = result["error.type"] = error.code.name
        elif isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit):
            result["rpc.status_code"] = result["error.type"] = _CANCELLED
        else:
            result["error.type"] = f"{type(error).__module__}.{type(error).__qualname__}"
        reason = error.reason if isinstance(error, CommerceError) else ""
        self._finish(result, reason)

    def leave(self) -> None:
        """End the span of a stream whose caller has what it wants, which is no error."""
        if not self._has_ended:
            self._has_ended = True
            self._finish({"rpc.status_code": _CANCELLED}, "")

    def _finish(self, result: dict[str, AttributeValue], reason: str) -> None:
        self._instruments.durations.record(
            time.perf_counter() - self._began, {**self._attributes, **result}, trace.set_span_in_context(self._span)
        )
        span = self._span
        if span.is_recording():
            span.set_attributes(result)
            if reason:
                span.set_attribute("commerce.error.reason", reason)
            if self._retries:
                span.set_attribute("commerce.retries", self._retries)
            if "error.type" in result:
                span.set_status(Status(StatusCode.ERROR, reason or None))
        span.end()


def server_attributes(target: str) -> dict[str, AttributeValue]:
    """Return the attributes that name the servers, by the target of a channel.

    >>> server_attributes("dns:///shop.example.com:443")
    {'server.address': 'shop.example.com', 'server.port': 443}
    >>> server_attributes("unix:/run/shop.sock")
    {'server.address': '/run/shop.sock'}
    """
    if path := re.fullmatch(r"unix:(?://)?(/.*)|unix(?:-abstract)?:(.*)", target):
        return {"server.address": path[1] or path[2]}
    if host := re.fullmatch(r"(?:dns:(?://[^/]*/)?|ipv[46]:)(\[[^\]]+\]|[^\[\]:,]+)(?::(\d+))?", target):
        address: dict[str, AttributeValue] = {"server.address": host[1].strip("[]")}
        return address | ({"server.port": int(host[2])} if host[2] else {})
    # Several addresses, or those of another scheme, have no shorter name.
    return {"server.address": target}


def _version() -> str:
    try:
        return version("commerce-client")
    except PackageNotFoundError:
        # The package was copied, not installed.
        return ""
