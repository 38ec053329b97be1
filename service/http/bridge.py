"""Calls of the service's own gRPC server, with the headers of an HTTP request as metadata."""

import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from service.http.failures import CallFailed, malformed, retry_after
from service.http.methods import HttpMethod

# The headers that become metadata: those that the service reads (docs/calling.md), and no others, so that no header of
# a browser or a proxy means anything to it.
FORWARDED = ("authorization", "x-api-key", "x-on-behalf-of", "x-read-preference", "x-request-id")
# In the trailing metadata of every call that the service has answered.
_ANSWERED = "x-request-id"
_DETAILS = "grpc-status-details-bin"
# What gRPC allows in metadata.
_ALLOWED = re.compile(rb"[\x20-\x7e]*")
# What the codes mean that gRPC itself sets, without details: its own messages name sockets and files.
_OWN_MESSAGES: Mapping[int, str] = MappingProxyType(
    {
        Code.DEADLINE_EXCEEDED: "the deadline of the call passed before the service answered",
        Code.UNAVAILABLE: "the service is stopping or has restarted",
        Code.RESOURCE_EXHAUSTED: "the request, its headers or the response exceed a limit of gRPC",
    }
)
_UNKNOWN_OUTCOME = "; if the method changes something, that may have happened"

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The response of a call with one response.

    Attributes:
        response: the response, serialized.
        trailers: the trailing metadata, without binary values.
    """

    response: bytes
    trailers: Metadata


class Bridge:
    """A channel to the service's own gRPC server.

    Args:
        socket: the Unix socket that the server listens on for this channel.
        max_response_bytes: the maximum size of a response.
    """

    def __init__(self, socket: Path, max_response_bytes: int) -> None:
        # Each server of a process, as in tests, has a connection of its own.
        options = [("grpc.max_receive_message_length", max_response_bytes), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=options)
        self._calls: dict[str, Any] = {}

    def add(self, method: HttpMethod) -> None:
        """Make a method callable."""
        # Without a serializer and a deserializer: messages are passed on as bytes.
        kind: Any = self._channel.unary_stream if method.streams else self._channel.unary_unary
        self._calls[method.path] = kind(method.path)

    async def call(self, method: HttpMethod, request: bytes, metadata: Metadata, seconds: float | None) -> Reply:
        """Call a method with one response; raises CallFailed. Cancelling the task cancels the call."""
        call = self._calls[method.path](request, metadata=metadata, timeout=seconds)
        try:
            response = await call
            trailers = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            raise _failure(method, error) from error
        return Reply(response, _text_of(trailers))

    async def stream(
        self, method: HttpMethod, request: bytes, metadata: Metadata, seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Call a method with a stream of responses; raises CallFailed. Closing the iterator cancels the call."""
        call = self._calls[method.path](request, metadata=metadata, timeout=seconds)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _failure(method, error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel, and cancel the calls that still run."""
        await self._channel.close()


def metadata_of(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """Return the metadata of a call, given the headers of its request.

    Raises:
        CallFailed: a header has characters that gRPC does not allow, or is sent twice: a proxy could have checked one
            of them, and the service would read the other.
    """
    metadata: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("latin-1")
        if key in FORWARDED:
            if not _ALLOWED.fullmatch(value):
                raise malformed(f"the header {key} has other characters than printable ASCII")
            if key in metadata:
                raise malformed(f"the header {key} is sent twice")
            metadata[key] = value.decode("ascii")
    return [*metadata.items()]


def _failure(method: HttpMethod, error: grpc.aio.AioRpcError) -> CallFailed:
    trailers = dict(error.trailing_metadata() or ())
    details = trailers.get(_DETAILS)
    if isinstance(details, bytes):
        status = Status.FromString(details)
        return CallFailed(status, headers=retry_after(status), is_logged=True)
    code, _ = error.code().value
    if _ANSWERED in trailers:
        # The service itself has set the status, without details: health does.
        return CallFailed(Status(code=code, message=error.details() or ""), is_logged=True)
    if code in {Code.CANCELLED, Code.UNAVAILABLE}:
        # The server has cancelled it because it stops: if the client had, no code would wait for the response here.
        return own_failure(method, Code.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE)
    return own_failure(method, code)


def own_failure(method: HttpMethod, code: int, http_status: int | None = None) -> CallFailed:
    """Return the failure of a call that has no answer of the service; the message says if its outcome is unknown."""
    message = _OWN_MESSAGES.get(code, "gRPC could not complete the call")
    unknown = "" if method.reads or code == Code.RESOURCE_EXHAUSTED else _UNKNOWN_OUTCOME
    return CallFailed(Status(code=code, message=message + unknown), http_status)


def _text_of(trailers: Iterable[tuple[str, str | bytes]]) -> Metadata:
    return [(key, value) for key, value in trailers if isinstance(value, str) and key != "grpc-message"]
