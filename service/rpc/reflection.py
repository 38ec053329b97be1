"""Server reflection in the versions v1 and v1alpha.

Newer tools ask for v1 first, but grpcio-reflection provides only v1alpha. The two versions differ only in the name of
the package, so one servicer answers both with the same messages.

grpcio-reflection does not find methods by their names, and leaves out the JSON names of fields, without which tools
show the names of the proto instead.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from functools import cache
from typing import Any

import google.rpc.error_details_pb2
import google.rpc.status_pb2  # noqa: F401 - with the line before, registers the details of errors
import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as V1ALPHA
from grpc_reflection.v1alpha.reflection import aio
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.methods import Context

Request = reflection_pb2.ServerReflectionRequest
Response = reflection_pb2.ServerReflectionResponse
V1 = V1ALPHA.replace(".v1alpha.", ".v1.")


class ReflectionServicer(aio.ReflectionServicer):
    """Describes services, their methods, messages and files, as protoc would."""

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802 - named in the proto; its stub is wrong
        self, request_iterator: AsyncIterable[Request], unused_context: Context
    ) -> AsyncGenerator[Response, None]:
        """Answer each request with one response."""
        asked: deque[Request] = deque()

        async def requests() -> AsyncGenerator[Request, None]:
            async for request in request_iterator:
                asked.append(request)
                yield _for_service_of_method(request)

        answers: Any = super().ServerReflectionInfo(requests(), unused_context)
        async for response in answers:
            response.original_request.CopyFrom(asked.popleft())
            yield _with_json_names(response)


def _for_service_of_method(request: Request) -> Request:
    """Return a request for the service if this one is for a method, which is in the same file; else this one."""
    if not request.HasField("file_containing_symbol"):
        return request
    try:
        method = descriptor_pool.Default().FindMethodByName(request.file_containing_symbol)
    except KeyError:
        return request
    return Request(file_containing_symbol=method.containing_service.full_name)


def _with_json_names(response: Response) -> Response:
    if not response.HasField("file_descriptor_response"):
        return response
    files = response.file_descriptor_response.file_descriptor_proto
    files[:] = [_file_with_json_names(file) for file in files]
    return response


@cache
def _file_with_json_names(data: bytes) -> bytes:
    file = FileDescriptorProto.FromString(data)
    messages = list(file.message_type)
    fields = list(file.extension)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        fields += [*message.field, *message.extension]
    for field in fields:
        if not field.json_name:
            field.json_name = _json_name(field.name)
    return file.SerializeToString()


def _json_name(name: str) -> str:
    """Return the JSON name that protoc gives a field.

    >>> _json_name("next_page_token")
    'nextPageToken'
    """
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def add_reflection(methods: InterceptedMethods, services: Sequence[str]) -> None:
    """Add reflection, which lists and describes the given services and the reflection services."""
    _register_v1()
    servicer = ReflectionServicer([*services, V1ALPHA, V1])
    methods.add(add_ServerReflectionServicer_to_server, servicer)
    v1 = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods.add_registered_method_handlers(V1, {"ServerReflectionInfo": v1})


def _register_v1() -> None:
    """Derive the descriptor of v1 from that of v1alpha, and add it to the pool in which reflection looks up names."""
    v1alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    v1 = text_format.MessageToString(v1alpha).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(v1, FileDescriptorProto()))
