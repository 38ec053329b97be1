"""Reflection, as tools without our protos use it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from service.server import SERVICES, Server
from tests.support.clients import Clients

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"
ALL_SERVICES = {*SERVICES, "grpc.health.v1.Health", V1ALPHA, V1}
BUF = Path(sys.executable).parent / "buf"


class Reflection:
    """One of the two versions of the reflection service; both have equal messages."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._ask: grpc.aio.StreamStreamMultiCallable[ServerReflectionRequest, ServerReflectionResponse]
        self._ask = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )

    async def ask(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        async def requests() -> AsyncIterator[ServerReflectionRequest]:
            yield request

        answers = [answer async for answer in self._ask(requests())]
        assert len(answers) == 1
        return answers[0]

    async def services(self) -> set[str]:
        answer = await self.ask(ServerReflectionRequest(list_services=""))
        return {service.name for service in answer.list_services_response.service}

    async def files_of(self, symbol: str) -> DescriptorPool:
        """Return a pool with the file of a symbol and its dependencies, built from the answers alone."""
        answer = await self.ask(ServerReflectionRequest(file_containing_symbol=symbol))
        files: dict[str, FileDescriptorProto] = {}
        await self._collect(answer, files)
        pool = DescriptorPool()
        for file in files.values():
            pool.Add(file)
        return pool

    async def names_of(self, symbol: str) -> list[str]:
        """Return the names of the files in the answer for a symbol."""
        answer = await self.ask(ServerReflectionRequest(file_containing_symbol=symbol))
        found = answer.file_descriptor_response.file_descriptor_proto
        return [FileDescriptorProto.FromString(data).name for data in found]

    async def _collect(self, answer: ServerReflectionResponse, files: dict[str, FileDescriptorProto]) -> None:
        assert not answer.HasField("error_response"), answer
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            if file.name in files:
                continue
            for name in file.dependency:
                if name not in files:
                    await self._collect(await self.ask(ServerReflectionRequest(file_by_filename=name)), files)
            # After its dependencies.
            files[file.name] = file


@pytest.fixture(params=[V1ALPHA, V1], ids=["v1alpha", "v1"])
def reflection(clients: Clients, request: pytest.FixtureRequest) -> Reflection:
    return Reflection(clients.channel, request.param)


async def test_every_service_is_listed(reflection: Reflection) -> None:
    assert await reflection.services() == ALL_SERVICES


@pytest.mark.parametrize("service", sorted(ALL_SERVICES))
async def test_every_service_can_be_described_with_all_that_it_needs(reflection: Reflection, service: str) -> None:
    described = (await reflection.files_of(service)).FindServiceByName(service)
    assert described.full_name == service
    assert described.methods
    for method in described.methods:
        assert method.input_type.full_name.startswith(service.rpartition(".")[0])


async def test_a_message_made_from_the_description_is_understood(clients: Clients, reflection: Reflection) -> None:
    user = await clients.create_user()
    method = (await reflection.files_of(SERVICES[0])).FindServiceByName(SERVICES[0]).FindMethodByName("GetUser")
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = clients.channel.unary_unary(
        f"/{SERVICES[0]}/GetUser",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    answer = MessageToDict(await call(request_class(username=user.username)))
    assert answer["user"]["email"] == user.email


@pytest.mark.parametrize(
    "symbol",
    [
        "commerce.users.v1.UserService.GetUser",
        "commerce.users.v1.User.email",
        "commerce.users.v1.GetUserRequest",
        "grpc.health.v1.Health.List",
        *(f"google.rpc.{name}" for name in ("ErrorInfo", "BadRequest", "RetryInfo", "PreconditionFailure", "Status")),
    ],
)
async def test_any_symbol_leads_to_its_file(reflection: Reflection, symbol: str) -> None:
    pool = await reflection.files_of(symbol)
    package = ".".join(symbol.split(".")[:3])
    assert any(package.startswith(str(pool.FindFileByName(name).package)) for name in await reflection.names_of(symbol))


async def test_fields_have_their_json_names(reflection: Reflection) -> None:
    answer = await reflection.ask(
        ServerReflectionRequest(file_containing_symbol="commerce.orders.v1.ListOrdersRequest")
    )
    files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
    names = {field.name: field.json_name for file in files for message in file.message_type for field in message.field}
    assert names["page_token"] == "pageToken"  # noqa: S105 - a name
    assert all(names.values())


async def test_an_unknown_symbol_is_not_found(reflection: Reflection) -> None:
    answer = await reflection.ask(ServerReflectionRequest(file_containing_symbol="commerce.users.v1.NoService"))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def curl(url: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        BUF,
        *("curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments, url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_buf_curl_lists_the_services(server: Server) -> None:
    output = await curl(f"http://127.0.0.1:{server.port}", "--list-services")
    assert set(output.split()) == ALL_SERVICES


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
async def test_buf_curl_calls_a_method_that_it_has_no_proto_of(server: Server, clients: Clients, protocol: str) -> None:
    user = await clients.create_user()
    output = await curl(
        f"http://127.0.0.1:{server.port}/{SERVICES[0]}/GetUser",
        *("--reflect-protocol", protocol, "--data", json.dumps({"id": user.id})),
    )
    assert json.loads(output)["user"]["username"] == user.username
