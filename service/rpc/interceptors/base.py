"""What all interceptors share: wrap each method once, and see one shape of call whatever the arity."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

# A request message, or the asynchronous iterator of them where the request is a stream.
Request = Any
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    # Only the stubs have parameters.
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler


class Call(Protocol):
    """A method as every interceptor sees it.

    It returns the response, a message or its bytes. A method that streams its response writes to the context instead
    and returns None, so that wrapping it needs no second kind of wrapper.
    """

    async def __call__(self, request: Request, context: Context) -> Message | bytes | None:
        """Answer one call."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method as its descriptor describes it."""

    # `/commerce.users.v1.UserService/GetUser`
    path: str
    request_streaming: bool
    response_streaming: bool
    descriptor: MethodDescriptor | None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this service's own, not health or reflection."""
        return self.path.startswith("/commerce.")


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps each method's handler once and keeps it: gRPC asks for the handler in every call."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler of a method, or None where there is no such method."""
        path = handler_call_details.method
        if path not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                # Not kept: callers could fill the memory with names.
                return None
            self._handlers[path] = self._wrapped(path, handler)
        return self._handlers[path]

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with what this interceptor adds."""
        raise NotImplementedError

    def deserializer(self, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return the method's deserializer with what this interceptor adds."""
        return deserialize

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        method = Method(path, handler.request_streaming, handler.response_streaming, _descriptor(path))
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        made: Handler = make(
            self.wrap(method, _as_call(handler)),
            request_deserializer=self.deserializer(handler.request_deserializer or bytes),
            response_serializer=_serializer(handler.response_serializer or bytes),
        )
        return made


_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _descriptor(path: str) -> MethodDescriptor | None:
    try:
        return descriptor_pool.Default().FindMethodByName(path.lstrip("/").replace("/", "."))
    except KeyError:
        return None


def _as_call(handler: Handler) -> Call:
    behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if not inspect.isasyncgenfunction(behavior):
        # A coroutine already: a method with one response, or one that writes its responses to the context (health
        # Watch).
        return cast("Call", behavior)

    async def write_all(request: Request, context: Context) -> None:
        # Closed at once when the caller goes, not when the collector finds it.
        async with aclosing(behavior(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write_all


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def serialize_unless_bytes(response: Message | bytes) -> bytes:
        return response if isinstance(response, bytes) else serialize(response)

    return serialize_unless_bytes
