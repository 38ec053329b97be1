"""Spans and metrics of calls, taken by OpenTelemetry's own SDK."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import grpc
import pytest
from commerce.client import AsyncClient, Client, Telemetry
from commerce.client.errors import UserNotFound
from commerce.client.otel import server_attributes
from commerce.client.testing import Service
from commerce.users.v1.user_service_pb2 import (
    ExportUsersRequest,
    ExportUsersResponse,
    GetUserRequest,
    GetUserResponse,
    ImportUsersRequest,
    ImportUsersResponse,
)
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags, TraceState

from service.server import Server
from tests.support.both_clients import BothClients, Kind, both_clients
from tests.support.passwords import PASSWORD

GET_USER = "commerce.users.v1.UserService/GetUser"
USER: Any = {"email": "later@example.com", "username": "later", "password": PASSWORD}
TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


class Recorded:
    """What a client has reported.

    Attributes:
        telemetry: the argument of the client.
    """

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self._reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(self.tracers, self.meters)

    def spans(self, method: str = "") -> Sequence[ReadableSpan]:
        """Return the spans that have ended, in this order, perhaps only those of one method."""
        return [span for span in self._exporter.get_finished_spans() if span.name.endswith(method)]

    def points(self, name: str) -> list[Any]:
        """Return what a metric has measured, for each set of attributes."""
        data = self._reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Takes what a client reports."""
    recorded = Recorded()
    yield recorded
    recorded.tracers.shutdown()
    recorded.meters.shutdown()


@pytest.fixture
async def both(kind: Kind, server: Server, recorded: Recorded) -> AsyncIterator[BothClients]:
    """A client of the shared server that reports."""
    async with both_clients(kind, server.port, telemetry=recorded.telemetry) as both:
        yield both


class Scripted:
    """A server that fails a few times before it answers.

    Attributes:
        failures: how many times it fails.
        is_silent: whether it never answers.
        arrived: set by the first attempt.
        received: the metadata of each attempt.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.is_silent = False
        self.arrived = asyncio.Event()
        self.received: list[dict[str, Any]] = []

    async def _begin(self, context: Any) -> None:
        self.received.append(dict(context.invocation_metadata()))
        self.arrived.set()
        if self.is_silent:
            await asyncio.Event().wait()
        if len(self.received) <= self.failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    async def get_user(self, _: GetUserRequest, context: Any) -> GetUserResponse:
        await self._begin(context)
        return GetUserResponse()

    async def export_users(self, _: ExportUsersRequest, context: Any) -> AsyncIterator[ExportUsersResponse]:
        await self._begin(context)
        yield ExportUsersResponse()

    async def import_users(self, rows: AsyncIterator[ImportUsersRequest], context: Any) -> ImportUsersResponse:
        await self._begin(context)
        async for _ in rows:
            pass
        return ImportUsersResponse(last_committed_row=1)

    def handlers(self) -> dict[str, Any]:
        """Return what answers each method."""
        return {
            "GetUser": grpc.unary_unary_rpc_method_handler(
                self.get_user, GetUserRequest.FromString, GetUserResponse.SerializeToString
            ),
            "ExportUsers": grpc.unary_stream_rpc_method_handler(
                self.export_users, ExportUsersRequest.FromString, ExportUsersResponse.SerializeToString
            ),
            "ImportUsers": grpc.stream_unary_rpc_method_handler(
                self.import_users, ImportUsersRequest.FromString, ImportUsersResponse.SerializeToString
            ),
        }


@asynccontextmanager
async def scripted(kind: Kind, *, telemetry: Telemetry | bool) -> AsyncIterator[tuple[Scripted, BothClients]]:
    """Run such a server, and a client of it that reports."""
    script, server = Scripted(), grpc.aio.server()
    service = GET_USER.partition("/")[0]
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, script.handlers())])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with both_clients(kind, port, telemetry=telemetry, health_check=False) as both:
            yield script, both
    finally:
        await server.stop(None)


async def test_a_call_is_a_span_and_a_duration(both: BothClients, recorded: Recorded, server: Server) -> None:
    user = await both.create_user()
    await both.call(lambda client: client.users.get(user.id))
    (span,) = recorded.spans("/GetUser")
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": GET_USER,
        "rpc.status_code": "OK",
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    assert (span.name, span.kind, dict(span.attributes or {})) == (GET_USER, SpanKind.CLIENT, attributes)
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "commerce.client"
    (point,) = [p for p in recorded.points("rpc.client.call.duration") if p.attributes["rpc.method"] == GET_USER]
    assert (point.count, dict(point.attributes)) == (1, attributes)
    assert point.explicit_bounds[:2] == (0.005, 0.01)
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < point.sum <= (span.end_time - span.start_time) / 1e9


async def test_a_failed_call_has_its_code_and_reason_and_nothing_of_a_person(
    both: BothClients, recorded: Recorded
) -> None:
    name = f"u{uuid4().hex[:20]}"
    user = await both.create_user(email=f"{name}@example.com", username=name)
    with pytest.raises(UserNotFound):
        await both.call(lambda client: client.users.get(username=f"no.{name}", on_behalf_of=None))
    (span,) = recorded.spans("/GetUser")
    assert span.attributes is not None
    assert {key: value for key, value in span.attributes.items() if not key.startswith("server.")} == {
        "rpc.system.name": "grpc",
        "rpc.method": GET_USER,
        "rpc.status_code": "NOT_FOUND",
        "error.type": "NOT_FOUND",
        "commerce.error.reason": "USER_NOT_FOUND",
    }
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "USER_NOT_FOUND")
    assert [
        p.attributes["error.type"] for p in recorded.points("rpc.client.call.duration") if "error.type" in p.attributes
    ] == ["NOT_FOUND"]
    reported = "".join(span.to_json() for span in recorded.spans())
    for secret in (name, user.id, PASSWORD):
        assert secret not in reported


async def test_an_attempt_that_is_repeated_is_an_event_of_the_span(kind: Kind, recorded: Recorded) -> None:
    async with scripted(kind, telemetry=recorded.telemetry) as (script, both):
        script.failures = 2
        await both.call(lambda client: client.users.get(username="ada"))
    (span,) = recorded.spans()
    assert span.attributes is not None
    assert (span.attributes["rpc.status_code"], span.attributes["commerce.retries"]) == ("OK", 2)
    events = [dict(event.attributes or {}) for event in span.events]
    assert [(event["commerce.retry.attempt"], event["error.type"]) for event in events] == [
        (1, "UNAVAILABLE"),
        (2, "UNAVAILABLE"),
    ]
    (point,) = recorded.points("commerce.client.retries")
    assert (point.value, point.attributes["rpc.method"], point.attributes["error.type"]) == (2, GET_USER, "UNAVAILABLE")
    (point,) = recorded.points("rpc.client.call.duration")
    assert point.count == 1


@contextmanager
def traced() -> Iterator[None]:
    """Be part of a trace until the block ends."""
    parent = trace.SpanContext(
        TRACE, PARENT, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("shop", "7")])
    )
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    try:
        yield
    finally:
        context.detach(token)


async def test_each_attempt_tells_the_server_of_the_trace(kind: Kind, recorded: Recorded) -> None:
    own = {"Traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    async with scripted(kind, telemetry=recorded.telemetry) as (script, both):
        script.failures = 1
        with traced():
            await both.call(lambda client: client.users.get(username="ada"))
            await both.call(lambda client: client.users.get(username="ada", grpc_metadata=own))
    span = recorded.spans()[0]
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (TRACE, PARENT)
    first, second, third = script.received
    expected = traceparent_of(span)
    assert first["traceparent"] == second["traceparent"] == expected
    assert first["tracestate"] == "shop=7"
    assert third["traceparent"] == own["Traceparent"]


def traceparent_of(span: ReadableSpan) -> str:
    """Return what tells a server of a span (https://www.w3.org/TR/trace-context/)."""
    own = span.get_span_context()
    assert own is not None
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-01"


async def test_streams_tell_the_server_of_the_trace_too(kind: Kind, recorded: Recorded) -> None:
    rows: Any = [{"email": "a@example.com", "username": "aa"}]
    async with scripted(kind, telemetry=recorded.telemetry) as (script, both):
        script.failures = 1
        with traced():
            await both.call(lambda client: client.users.import_(rows))
            assert await both.items(lambda client: client.users.export()) == []
    imported, exported = recorded.spans()
    assert [event.name for event in imported.events] == ["retry"]
    assert [received["traceparent"] for received in script.received] == [
        traceparent_of(imported),
        traceparent_of(imported),
        traceparent_of(exported),
    ]
    assert imported.parent is not None
    assert exported.parent is not None
    assert {imported.parent.span_id, exported.parent.span_id} == {PARENT}


async def test_a_call_that_is_cancelled_ends_its_span(recorded: Recorded) -> None:
    async with scripted("asyncio", telemetry=recorded.telemetry) as (script, both):
        script.is_silent = True
        call = asyncio.ensure_future(both.call(lambda client: client.users.get(username="ada")))
        await script.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    (span,) = recorded.spans()
    assert span.attributes is not None
    assert (span.attributes["rpc.status_code"], span.attributes["error.type"]) == ("CANCELLED", "CANCELLED")


async def test_a_page_that_is_not_wanted_is_no_error(both: BothClients, recorded: Recorded) -> None:
    for _ in range(3):
        await both.create_user()

    def first_of(client: Any) -> object:
        for user in client.users.list(page_size=1):
            return user
        return None

    async def first_of_async(client: Any) -> object:
        users = aiter(client.users.list(page_size=1))
        user = await anext(users)
        await users.aclose()
        return user

    assert await both.call(first_of_async if both.kind == "asyncio" else first_of)
    assert {span.status.status_code for span in recorded.spans("/ListUsers")} == {StatusCode.UNSET}


async def test_streams_are_spans_too(kind: Kind, service: Service, recorded: Recorded) -> None:
    rows: Any = [{"email": f"s{number}@example.com", "username": f"s.{number}"} for number in range(1001)]

    def in_thread() -> None:
        with Client(service.address, telemetry=recorded.telemetry) as client:
            client.users.import_(rows)
            assert list(client.users.export())
            with client.users.watch() as watch:
                service.stop()
                service.start()
                user = client.users.create(**USER)
                assert next(watch).user_id == user.id

    if kind == "sync":
        await asyncio.to_thread(in_thread)
    else:
        async with AsyncClient(service.address, telemetry=recorded.telemetry) as client:
            await client.users.import_(rows)
            assert [user async for user in client.users.export()]
            async with client.users.watch() as watch:
                service.stop()
                service.start()
                user = await client.users.create(**USER)
                assert (await anext(watch)).user_id == user.id
    # A thousand rows, and one.
    assert outcomes(recorded)[:3] == [
        ("ImportUsers", "OK", StatusCode.UNSET),
        ("ImportUsers", "OK", StatusCode.UNSET),
        ("ExportUsers", "OK", StatusCode.UNSET),
    ]
    *broken, last = recorded.spans("/WatchUsers")
    assert {span.status.status_code for span in broken} == {StatusCode.ERROR}
    assert (last.status.status_code, (last.attributes or {})["rpc.status_code"]) == (StatusCode.UNSET, "CANCELLED")
    reopened = [
        p for p in recorded.points("commerce.client.retries") if p.attributes["rpc.method"].endswith("WatchUsers")
    ]
    assert sum(point.value for point in reopened) == len(broken) >= 1
    assert sum(point.count for point in recorded.points("rpc.client.call.duration")) == len(recorded.spans())


def outcomes(recorded: Recorded) -> list[tuple[str, Any, StatusCode]]:
    return [
        (span.name.rpartition("/")[2], (span.attributes or {})["rpc.status_code"], span.status.status_code)
        for span in recorded.spans()
    ]


@pytest.mark.parametrize(
    ("target", "attributes"),
    [
        ("dns:///shop.example.com:443", {"server.address": "shop.example.com", "server.port": 443}),
        ("dns:///shop.example.com", {"server.address": "shop.example.com"}),
        ("dns://10.0.0.1/shop:50051", {"server.address": "shop", "server.port": 50051}),
        ("dns:///[::1]:50051", {"server.address": "::1", "server.port": 50051}),
        ("ipv4:10.0.0.1:50051", {"server.address": "10.0.0.1", "server.port": 50051}),
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", {"server.address": "ipv4:10.0.0.1:50051,10.0.0.2:50051"}),
        ("unix:/run/shop.sock", {"server.address": "/run/shop.sock"}),
        ("unix:///run/shop.sock", {"server.address": "/run/shop.sock"}),
        ("unix-abstract:shop", {"server.address": "shop"}),
        ("xds:///shop", {"server.address": "xds:///shop"}),
    ],
)
def test_servers_are_named_by_the_address_of_the_client(target: str, attributes: dict[str, object]) -> None:
    assert server_attributes(target) == attributes


def run(script: str, address: str) -> Any:
    """Run a program that calls GetUser after `script`, and return what it prints."""
    program = f"""if True:
        import json, sys
        {script}
        from commerce.client import Client, CommerceError
        with Client({address!r}) as client:
            before = sorted(name for name in sys.modules if name.startswith("opentelemetry."))
            try:
                client.users.get(username="nobody.here")
            except CommerceError as error:
                assert error.reason == "USER_NOT_FOUND", error
        print(json.dumps([before, "commerce.client.otel" in sys.modules, [s.name for s in spans()]]))
    """
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(output.stdout)


def test_a_program_without_opentelemetry_imports_nothing_of_it(service: Service) -> None:
    assert run("sys.modules['opentelemetry'] = None; spans = list", service.address) == [[], False, []]
    assert run("spans = list", service.address) == [[], False, []]


def test_the_global_providers_are_used_as_soon_as_they_are_set(service: Service) -> None:
    assert run("import opentelemetry.trace; spans = list", service.address)[1:] == [True, []]
    script = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        spans = exporter.get_finished_spans
    """
    assert run(script, service.address)[1:] == [True, [GET_USER]]


async def test_a_client_can_do_without(kind: Kind) -> None:
    with traced():
        async with scripted(kind, telemetry=False) as (script, both):
            await both.call(lambda client: client.users.get(username="ada"))
        assert "traceparent" not in script.received[0]
        # Without an SDK, the context of a caller is passed on.
        async with scripted(kind, telemetry=True) as (script, both):
            await both.call(lambda client: client.users.get(username="ada"))
        assert script.received[0]["traceparent"] == f"00-{TRACE:032x}-{PARENT:016x}-01"
