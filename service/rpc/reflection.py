"""Server reflection in the versions v1 and v1alpha.

Newer tools ask for v1 first, but grpcio-reflection provides only v1alpha. The two versions differ only in the name of
the package, so one servicer answers both with the same messages.
"""

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as V1ALPHA
from grpc_reflection.v1alpha.reflection import aio
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from service.rpc.interceptors.base import InterceptedMethods

V1 = V1ALPHA.replace(".v1alpha.", ".v1.")


def add_reflection(methods: InterceptedMethods, services: Sequence[str]) -> None:
    """Add reflection, which lists and describes the given services and the reflection services."""
    _register_v1()
    servicer = aio.ReflectionServicer([*services, V1ALPHA, V1])
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
