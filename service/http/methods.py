"""The methods that are served over HTTP, as their descriptors describe them."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass


class HttpMethod:
    """A method with one request.

    Attributes:
        path: of its URL and of its gRPC method: `/commerce.users.v1.UserService/GetUser`.
        reads: whether it has no side effects, so that GET is allowed.
        streams: whether it returns a stream of responses.
        request: the class of its request message.
        response: the class of its response message.
    """

    def __init__(self, descriptor: MethodDescriptor) -> None:
        self.path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        self.service = descriptor.containing_service.full_name
        self.name = descriptor.name
        self.reads: bool = descriptor.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        self.streams: bool = descriptor.server_streaming
        # Messages of this type have fields that no type checker knows.
        self.request: Any = GetMessageClass(descriptor.input_type)
        self.response: Any = GetMessageClass(descriptor.output_type)


def methods_of(services: Iterable[str]) -> Mapping[str, HttpMethod]:
    """Return the methods of services by their paths, without those whose callers stream: HTTP/1.1 cannot."""
    pool = descriptor_pool.Default()
    methods = [
        HttpMethod(method)
        for service in services
        for method in pool.FindServiceByName(service).methods
        if not method.client_streaming
    ]
    return {method.path: method for method in methods}
