"""What all interceptors share: wrap each method once, at start, and see one shape of call whatever the arity."""

import inspect
from collections.abc import Callable, Mapping, Sequence
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


class Interceptor:
    """Adds something to every method. As gRPC's own interceptors do, but those are asked for the handler in every call.

    By default, it adds nothing.
    """

    def wrap(self, _method: Method, call: Call) -> Call:
        """Return the method with what this interceptor adds."""
        return call

    def deserializer(self, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return the method's deserializer with what this interceptor adds."""
        return deserialize


class InterceptedMethods:
    """Takes the methods of services, in the place of the server that generated code adds them to, and wraps them.

    Args:
        interceptors: the first is the outermost.
    """

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors
        # By service, then by the method's name in it.
        self.handlers: dict[str, dict[str, Handler]] = {}

    def add(self, add_to_server: Callable[..., None], servicer: object) -> None:
        """Wrap and keep the methods of a servicer, which the function `add_…Servicer_to_server` adds."""
        add_to_server(servicer, self)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Wrap and keep the methods of a service."""
        self.handlers[service] = {
            name: self._wrapped(f"/{service}/{name}", handler) for name, handler in handlers.items()
        }

    def add_generic_rpc_handlers(self, _handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Take what generated code adds for older servers: the same methods once more."""

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        method = Method(path, handler.request_streaming, handler.response_streaming, _descriptor(path))
        call, deserialize = _as_call(handler), handler.request_deserializer or bytes
        for interceptor in reversed(self._interceptors):
            call, deserialize = interceptor.wrap(method, call), interceptor.deserializer(deserialize)
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(
            call,
            request_deserializer=deserialize,
            response_serializer=_serializer(handler.response_serializer or bytes),
        )


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
