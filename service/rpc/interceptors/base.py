"""The base class of interceptors, and the registry that wraps each method with them once, at start."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from service.rpc.admission.admission import Admission
from service.rpc.methods import Call, Context, Handler, Method, Request

_HEALTH = "/grpc.health."


class Interceptor:
    """Adds behavior to methods when the server starts. The base class adds none.

    gRPC's own interceptors do the same, but gRPC asks them for the handler in every call.
    """

    def wrap(self, _method: Method, call: Call) -> Call:
        """Return the method with the behavior that this interceptor adds."""
        return call

    def deserializer(self, _method: Method, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return the method's deserializer with the behavior that this interceptor adds."""
        return deserialize


class InterceptedMethods:
    """Collects the methods of servicers and wraps them with interceptors.

    Generated code adds the methods to it as if it were a server.

    Args:
        interceptors: the first is the outermost.
        admission: knows which calls would be refused for load, before they are read.

    Attributes:
        handlers: the wrapped methods, by the full name of the service and then by the name of the method.
        limited: the paths of all methods except those of health: only their calls may be refused for load.
    """

    def __init__(self, interceptors: Sequence[Interceptor], admission: Admission | None = None) -> None:
        self.admission = admission
        self._interceptors = interceptors
        self.handlers: dict[str, dict[str, Handler]] = {}
        self.limited: set[str] = set()

    def add(self, add_to_server: Callable[..., None], servicer: object) -> None:
        """Wrap the methods of a servicer; `add_to_server` is its generated function `add_…Servicer_to_server`."""
        add_to_server(servicer, self)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Wrap the methods of a service."""
        self.handlers[service] = {}
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self.handlers[service][name] = self._wrapped(path, handler)
            if not path.startswith(_HEALTH):
                self.limited.add(path)

    def add_generic_rpc_handlers(self, _handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore the second form in which generated code adds the same methods: it is for older servers."""

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        method = Method(path, handler.request_streaming, handler.response_streaming, _descriptor(path))
        call, deserialize = _as_call(handler), handler.request_deserializer or bytes
        for interceptor in reversed(self._interceptors):
            call, deserialize = interceptor.wrap(method, call), interceptor.deserializer(method, deserialize)
        make_handler = _HANDLER_FACTORIES[handler.request_streaming, handler.response_streaming]
        return make_handler(
            call,
            request_deserializer=deserialize,
            response_serializer=_serializer(handler.response_serializer or bytes),
        )


# By whether the client streams and whether the server does.
_HANDLER_FACTORIES: dict[tuple[bool, bool], Callable[..., Handler]] = {
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
        # A coroutine function has the signature already: it returns one response, or it writes its responses to the
        # context (as the Watch of health does).
        return cast("Call", behavior)

    async def write_all(request: Request, context: Context) -> None:
        # Closes the generator as soon as the client disconnects, not when the garbage collector finds it.
        async with aclosing(behavior(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write_all


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def serialize_unless_bytes(response: Message | bytes) -> bytes:
        return response if isinstance(response, bytes) else serialize(response)

    return serialize_unless_bytes
