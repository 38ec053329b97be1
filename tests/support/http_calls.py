"""Calls over HTTP in each protocol, written as the protocol describes them, without a library of its clients."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.support.methods import ALL_METHODS, path_of

CONNECT = {"connect-protocol-version": "1"}
JSON = {"content-type": "application/json"}
# Of the last message of a stream.
CONNECT_END, GRPC_WEB_END = 0x02, 0x80
USERS, ORDERS = "/commerce.users.v1.UserService", "/commerce.orders.v1.OrderService"


def frame(message: bytes, flags: int = 0) -> bytes:
    """Return a message as gRPC, gRPC-Web and streams of Connect frame it."""
    return struct.pack(">BI", flags, len(message)) + message


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """Return the flags and the messages of a body."""
    found = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def to_json(message: Message) -> bytes:
    """Return a message as JSON."""
    return MessageToJson(message).encode()


def error_info(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ErrorInfo of a status in JSON, or of an error of Connect."""
    first: dict[str, Any] = error["details"][0]
    if "@type" in first:
        assert first["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
        return first
    assert first["type"] == "google.rpc.ErrorInfo"
    debug: dict[str, Any] = first["debug"]
    return debug


def grpc_web_trailers(body: bytes) -> dict[str, str]:
    """Return the trailers at the end of a response of gRPC-Web."""
    flags, last = frames(body)[-1]
    assert flags == GRPC_WEB_END
    return dict(line.split(": ", 1) for line in last.decode().splitlines())


@dataclass(frozen=True)
class Protocol:
    """How a protocol sends a request, and what it returns: the responses, and the bytes that end them."""

    headers: Mapping[str, str]
    body: Callable[[Message], bytes]
    responses: Callable[[bytes, type[Message]], list[Any]]


def _json_responses(body: bytes, kind: type[Message]) -> list[Any]:
    return [Parse(body, kind())]


def _json_lines(body: bytes, kind: type[Message]) -> list[Any]:
    *lines, last = map(json.loads, body.splitlines())
    assert last == {"end": {}}
    return [Parse(json.dumps(line["result"]), kind()) for line in lines]


def _connect_stream(parse: Callable[[bytes, type[Message]], Any]) -> Callable[[bytes, type[Message]], list[Any]]:
    def responses(body: bytes, kind: type[Message]) -> list[Any]:
        *messages, (flags, last) = frames(body)
        assert flags == CONNECT_END
        assert "error" not in json.loads(last)
        return [parse(message, kind) for _, message in messages]

    return responses


def _grpc_web(body: bytes, kind: type[Message]) -> list[Any]:
    assert grpc_web_trailers(body)["grpc-status"] == "0"
    return [_from_bytes(message, kind) for _, message in frames(body)[:-1]]


def _from_bytes(message: bytes, kind: type[Message]) -> Any:
    return kind.FromString(message)


def _from_json(message: bytes, kind: type[Message]) -> Any:
    return Parse(message, kind())


def _binary(request: Message) -> bytes:
    return request.SerializeToString()


_GRPC_WEB = Protocol({"content-type": "application/grpc-web+proto"}, lambda request: frame(_binary(request)), _grpc_web)
UNARY = {
    "json": Protocol(JSON, to_json, _json_responses),
    "connect-json": Protocol({**JSON, **CONNECT}, to_json, _json_responses),
    "connect-proto": Protocol(
        {"content-type": "application/proto", **CONNECT}, _binary, lambda body, kind: [_from_bytes(body, kind)]
    ),
    "grpc-web": _GRPC_WEB,
}
STREAMS = {
    "json": Protocol(JSON, to_json, _json_lines),
    "connect-json": Protocol(
        {"content-type": "application/connect+json", **CONNECT},
        lambda request: frame(to_json(request)),
        _connect_stream(_from_json),
    ),
    "connect-proto": Protocol(
        {"content-type": "application/connect+proto", **CONNECT},
        lambda request: frame(_binary(request)),
        _connect_stream(_from_bytes),
    ),
    "grpc-web": _GRPC_WEB,
}


async def call_over_http(http: httpx.AsyncClient, method: str, request: Message, protocol: Protocol) -> list[Any]:
    """Call a method, and return its responses."""
    response = await http.post(path_of(method), content=protocol.body(request), headers=dict(protocol.headers))
    assert response.status_code == 200, response.text
    return protocol.responses(response.content, response_class_of(ALL_METHODS[method]))


def response_class_of(method: MethodDescriptor) -> type[Any]:
    """Return the class of the responses of a method."""
    return GetMessageClass(method.output_type)
