"""The status of a failed call with its details unpacked, and assertions about it."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from grpc_status import rpc_status

# The text of gRPC's client, not of the server, for a stream that the server has ended while the client was sending.
ENDED_WHILE_SENDING = "Internal error from Core"


@dataclass
class Failure:
    """The status of a failed call with its details unpacked; `fails` fills it when its block ends."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    # The field paths of BadRequest.
    fields: list[str] = field(default_factory=list)
    details: dict[type[Message], Message] = field(default_factory=dict)
    trailers: dict[str, str | bytes] = field(default_factory=dict)


@contextmanager
def fails(code: grpc.StatusCode, reason: str, *, field: str | None = None) -> Iterator[Failure]:
    """Require that the block fails with this code, this reason and, if given, this field among the invalid ones."""
    failure = Failure()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield failure
    vars(failure).update(vars(failure_of(raised.value)))
    assert (failure.code, failure.reason) == (code, reason), failure
    if field is not None:
        assert field in failure.fields, failure.fields


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Return the status of a failed call."""
    failure = Failure(error.code(), error.details() or "", trailers=dict(error.trailing_metadata() or ()))
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # takes the error of an aio call too
    for packed in status.details if status else ():
        for kind in (ErrorInfo, BadRequest, PreconditionFailure, ResourceInfo, RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                failure.details[kind] = detail
    info = failure.details.get(ErrorInfo)
    if isinstance(info, ErrorInfo):
        assert info.domain == "commerce"
        failure.reason, failure.metadata = info.reason, dict(info.metadata)
    if isinstance(bad_request := failure.details.get(BadRequest), BadRequest):
        failure.fields = [violation.field for violation in bad_request.field_violations]
    return failure


T = TypeVar("T")


async def settled(*calls: Awaitable[T]) -> tuple[list[T], list[Failure]]:
    """Wait for all calls; return the answers, and the statuses of the failed calls."""
    answers: list[T] = []
    failures = []
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, grpc.aio.AioRpcError):
            failures.append(failure_of(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            answers.append(outcome)
    return answers, failures
