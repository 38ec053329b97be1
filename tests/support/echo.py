"""A test service with a method of each arity that echoes its requests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from commerce.users.v1.user_service_pb2 import GetUserRequest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto

from service.rpc.methods import Context

# Its request is a message of the API, so that validation applies to it.
SERVICE = "commerce.testing.v1.EchoService"
ARITIES = {
    "UnaryUnary": (False, False),
    "UnaryStream": (False, True),
    "StreamUnary": (True, False),
    "StreamStream": (True, True),
}
_MESSAGE = f".{GetUserRequest.DESCRIPTOR.full_name}"
descriptor_pool.Default().AddSerializedFile(
    FileDescriptorProto(
        name="commerce/testing/v1/echo_service.proto",
        package="commerce.testing.v1",
        syntax="proto3",
        dependency=[GetUserRequest.DESCRIPTOR.file.name],
        service=[
            ServiceDescriptorProto(
                name="EchoService",
                method=[
                    MethodDescriptorProto(
                        name=name,
                        input_type=_MESSAGE,
                        output_type=_MESSAGE,
                        client_streaming=request_streaming,
                        server_streaming=response_streaming,
                    )
                    for name, (request_streaming, response_streaming) in ARITIES.items()
                ],
            )
        ],
    ).SerializeToString()
)


class Echo:
    """The service.

    Attributes:
        act: awaited before the last answer.
        context: the context of the last call of UnaryUnary.
    """

    def __init__(self) -> None:
        self.act: Callable[[], Awaitable[None]] = nothing
        self.context: Context | None = None

    def handlers(self) -> dict[str, Any]:
        codec: dict[str, Any] = {
            "request_deserializer": GetUserRequest.FromString,
            "response_serializer": GetUserRequest.SerializeToString,
        }
        return {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self._unary_unary, **codec),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self._unary_stream, **codec),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self._stream_unary, **codec),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self._stream_stream, **codec),
        }

    async def _unary_unary(self, request: GetUserRequest, context: Context) -> GetUserRequest:
        self.context = context
        await self.act()
        return request

    async def _unary_stream(self, request: GetUserRequest, _context: Context) -> AsyncIterator[GetUserRequest]:
        yield request
        yield request
        await self.act()
        yield request

    async def _stream_unary(self, requests: AsyncIterator[GetUserRequest], _context: Context) -> GetUserRequest:
        joined = "-".join([request.username async for request in requests])
        await self.act()
        return GetUserRequest(username=joined)

    async def _stream_stream(
        self, requests: AsyncIterator[GetUserRequest], _context: Context
    ) -> AsyncIterator[GetUserRequest]:
        async for request in requests:
            yield request
        await self.act()


async def nothing() -> None:
    """Do nothing."""


async def call(
    channel: grpc.aio.Channel, arity: str, *names: str, body: bytes | None = None, seconds: float = 30
) -> list[str]:
    """Send these names, or these bytes, and return the names that come back."""
    request_streaming, response_streaming = ARITIES[arity]
    make: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[request_streaming, response_streaming]
    stub = make(f"/{SERVICE}/{arity}", response_deserializer=GetUserRequest.FromString)
    bodies = [GetUserRequest(username=name).SerializeToString() for name in names] if body is None else [body]
    answer = stub(iter(bodies) if request_streaming else bodies[0], timeout=seconds)
    try:
        if response_streaming:
            return [response.username async for response in answer]
        return [(await answer).username]
    finally:
        # If this coroutine is cancelled, that may only stop the reading of a message: cancel the call too.
        answer.cancel()
