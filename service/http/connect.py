"""Connect and gRPC-Web, as the library connectrpc serves them, with the service's own errors.

Requests and responses pass through the library as bytes: it has one application for binary messages, which are passed
on without being parsed, and one for JSON.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import Headers, RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from protobuf import message_from_json_value
from protobuf.wkt import Any as PackedMessage
from protobuf.wkt import Struct

from service.http.bridge import Bridge, Metadata, metadata_of, own_failure
from service.http.conversion import Conversion
from service.http.exchange import Exchange
from service.http.failures import CallFailed, decoded, malformed, too_large
from service.http.internal import internal_failure
from service.http.memory import Memory
from service.http.methods import HttpMethod

_CODES: Mapping[int, Code] = {
    number: Code.CANCELED if name == "CANCELLED" else Code[name]
    for name, number in code_pb2.Code.items()
    if name != "OK"
}


class _Bytes:
    """A codec that leaves messages as they are."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def encode(self, message: bytes) -> bytes:
        return message

    def decode(self, data: bytes | bytearray, message_class: object) -> bytes:  # noqa: ARG002 - the library passes it
        return bytes(data)


class _Application(ConnectASGIApplication[None]):
    path = "/"


class _Errors:
    """Gives errors details, also those of the library; none is passed on as it was raised."""

    def __init__(self, methods: Mapping[str, HttpMethod], max_request_bytes: int) -> None:
        self._methods = methods
        self._max_request_bytes = max_request_bytes

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        """Do nothing."""

    async def on_end(self, token: None, ctx: RequestContext[Any, Any], error: Exception | None) -> None:  # noqa: ARG002 - the library passes it
        """Raise the error that is sent instead of the one that was raised."""
        if error is None:
            return
        failed = self._failure(ctx, error)
        if failed is not None:
            ctx.response_headers.update(failed.headers)
            raise _connect_error(failed.status) from error

    def _failure(self, ctx: RequestContext[Any, Any], error: Exception) -> CallFailed | None:
        if isinstance(error, CallFailed):
            return error
        path = f"/{ctx.method.service_name}/{ctx.method.name}"
        if not isinstance(error, ConnectError):
            return internal_failure(error, path)
        match error.code:
            case Code.INVALID_ARGUMENT | Code.UNIMPLEMENTED:
                return malformed(f"the request is not one of its protocol: {error.message}")
            case Code.RESOURCE_EXHAUSTED:
                return too_large(self._max_request_bytes)
            case Code.DEADLINE_EXCEEDED:
                return own_failure(self._methods[path], code_pb2.DEADLINE_EXCEEDED)
            case _:
                return None


class _DecodedDetail(ErrorDetail):
    """A detail of an error with its content for people, which Connect calls `debug`, beside its bytes."""

    def __init__(self, type_url: str, value: bytes, content: dict[str, Any]) -> None:
        super().__init__(PackedMessage(type_url=type_url, value=value))
        self._content = message_from_json_value(Struct, content) if content else None

    def value(self, *_: Any) -> Any:  # noqa: ANN401 - as in the library
        """Return the content."""
        return self._content


def _connect_error(status: Status) -> ConnectError:
    details = [_DecodedDetail(detail.type_url, detail.value, decoded(detail)) for detail in status.details]
    return ConnectError(_CODES.get(status.code, Code.UNKNOWN), status.message, details)


class Connect:
    """Serves Connect and gRPC-Web.

    Args:
        methods: the methods.
        bridge: calls the service.
        conversion: converts messages.
        responses: counts the responses in memory.
        max_request_bytes: the maximum size of a request.
    """

    def __init__(
        self,
        methods: Mapping[str, HttpMethod],
        bridge: Bridge,
        conversion: Conversion,
        responses: Memory,
        max_request_bytes: int,
    ) -> None:
        self._bridge = bridge
        self._conversion = conversion
        self._responses = responses

        def application(name: str, *, json: bool) -> _Application:
            endpoints = {path: self._endpoint(method, json=json) for path, method in methods.items()}
            return _Application(
                service=None,
                endpoints=lambda _: endpoints,
                interceptors=[_Errors(methods, max_request_bytes)],
                read_max_bytes=max_request_bytes,
                # None: to compress a large response would block the event loop.
                compressions=(),
                codecs=[_Bytes(name)],
            )

        self._json = application("json", json=True)
        self._binary = application("proto", json=False)

    async def serve(self, exchange: Exchange, *, json: bool) -> None:
        """Serve a request, whose path is that of a method."""
        application = self._json if json else self._binary
        await application(exchange.scope, cast("Any", exchange.receive), cast("Any", exchange.send))

    def _endpoint(self, method: HttpMethod, *, json: bool) -> Any:  # noqa: ANN401 - an endpoint for bytes, not messages
        reads = IdempotencyLevel.NO_SIDE_EFFECTS if method.reads else IdempotencyLevel.UNKNOWN
        info: MethodInfo[bytes, bytes] = MethodInfo(
            name=method.name,
            service_name=method.service,
            input=bytes,
            output=bytes,
            idempotency_level=reads,
            stream_type=StreamType.SERVER_STREAM if method.streams else StreamType.UNARY,
        )

        async def call(request: bytes, ctx: RequestContext[bytes, bytes]) -> bytes:
            if json:
                request = await self._conversion.request(method, request)
            reply = await self._bridge.call(method, request, _metadata(ctx.request_headers), _seconds(ctx))
            self._responses.share().hold(len(reply.response))
            ctx.response_trailers.update(reply.trailers)
            return await self._conversion.response(method, reply.response) if json else reply.response

        async def stream(request: bytes, ctx: RequestContext[bytes, bytes]) -> AsyncIterator[bytes]:
            share = self._responses.share()
            if json:
                request = await self._conversion.request(method, request)
            calling = self._bridge.stream(method, request, _metadata(ctx.request_headers), _seconds(ctx))
            async with aclosing(calling) as responses:
                async for response in responses:
                    share.hold(len(response))
                    yield await self._conversion.response(method, response) if json else response

        return Endpoint.server_stream(info, stream) if method.streams else Endpoint.unary(info, call)


def _metadata(headers: Headers) -> Metadata:
    return metadata_of((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.allitems())


def _seconds(ctx: RequestContext[Any, Any]) -> float | None:
    milliseconds = ctx.timeout_ms
    return None if milliseconds is None else max(0.0, milliseconds / 1000)
