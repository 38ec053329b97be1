"""The methods of the API, by their descriptors, and calls of a method by its name."""

from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

ALL_METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for file, service in ((users_pb.DESCRIPTOR, "UserService"), (orders_pb.DESCRIPTOR, "OrderService"))
    for method in file.services_by_name[service].methods
}


# Streams are tested elsewhere: their requests cannot be repeated as they are.
METHODS = {
    name: method for name, method in ALL_METHODS.items() if not (method.client_streaming or method.server_streaming)
}


def _writes(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS)


READS = sorted(name for name, method in METHODS.items() if not _writes(method))


# Every method that writes, except VerifyPassword, which only rehashes a password and has no `request_id`.
MUTATIONS = sorted(name for name, method in METHODS.items() if _writes(method) and name != "VerifyPassword")


def request_class(method: str) -> type[Any]:
    """Return the class of a method's request."""
    return GetMessageClass(METHODS[method].input_type)


def response_class(method: str) -> type[Any]:
    """Return the class of a method's response."""
    return GetMessageClass(METHODS[method].output_type)


def path_of(method: str) -> str:
    """Return the path of a method in HTTP/2."""
    return f"/{ALL_METHODS[method].containing_service.full_name}/{method}"


async def call_bytes(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    """Call a method with these bytes and return those of its response."""
    # Without serializers the call takes and returns bytes; the types of the stub do not say so.
    in_bytes: Any = channel.unary_unary(path_of(method))
    response: bytes = await in_bytes(request)
    return response


async def call(channel: grpc.aio.Channel, method: str, request: Message) -> Any:
    """Call a method and return its response."""
    return response_class(method).FromString(await call_bytes(channel, method, request.SerializeToString()))


def resource_of(message: Any) -> Any:
    """Return the user, order or note that a request or response has, or None."""
    found = {"user", "order", "note"} & set(message.DESCRIPTOR.fields_by_name)
    return getattr(message, found.pop()) if found else None


def etag_holder(request: Any) -> Any:
    """Return the message that has the request's etag: the request or its resource, or None."""
    return request if "etag" in request.DESCRIPTOR.fields_by_name else resource_of(request)
