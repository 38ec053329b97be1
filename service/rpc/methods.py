"""Types of methods and calls, for servicers, streams and interceptors."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

# A request message, or an asynchronous iterator of messages if the client streams.
Request = Any
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    # Only the stubs have type parameters.
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler


class Call(Protocol):
    """The implementation of a method, with one signature for unary and streaming methods.

    It returns the response, as a message or as bytes. A method that streams responses writes them to the context and
    returns None, so that interceptors need only one kind of wrapper.
    """

    async def __call__(self, request: Request, context: Context) -> Message | bytes | None:
        """Answer one call."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method, as its descriptor describes it.

    Attributes:
        path: for example `/commerce.users.v1.UserService/GetUser`.
        request_streaming: whether the client streams.
        response_streaming: whether the server streams.
        descriptor: None if the pool does not know the method.
    """

    path: str
    request_streaming: bool
    response_streaming: bool
    descriptor: MethodDescriptor | None

    @property
    def is_ours(self) -> bool:
        """Whether the method belongs to this service's API rather than to health or reflection."""
        return self.path.startswith("/commerce.")

    @property
    def reads(self) -> bool:
        """Whether the method declares that it has no side effects."""
        if self.descriptor is None:
            return False
        level = self.descriptor.GetOptions().idempotency_level
        return bool(level == MethodOptions.NO_SIDE_EFFECTS)
