"""Failures of HTTP calls, as `google.rpc.Status`: those of the service, and those of requests that do not reach it."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseError
from google.rpc import error_details_pb2
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from service.domain.errors import FieldViolation, InvalidField, MalformedRequest
from service.rpc.status import overloaded, status_of

# When to retry a call that this port refuses for its own limits.
_RETRY_SECONDS = 1.0
# As google/rpc/code.proto maps codes to HTTP; nginx's 499 is for a client that has gone.
_HTTP_STATUSES: Mapping[int, int] = MappingProxyType(
    {
        Code.CANCELLED: 499,
        Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
        Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
        Code.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
        Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
        Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
        Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
        Code.ABORTED: HTTPStatus.CONFLICT,
        Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
        Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
        Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
        Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# The details that a status can have, by their full names.
_DETAILS: Mapping[str, Any] = MappingProxyType(
    {
        message.DESCRIPTOR.full_name: message
        for message in vars(error_details_pb2).values()
        if hasattr(message, "DESCRIPTOR") and hasattr(message, "FromString")
    }
)


class CallFailed(Exception):
    """A call has failed.

    Attributes:
        status: the status.
        http_status: the HTTP status for a response that has not begun.
        headers: further HTTP headers of such a response.
        is_logged: whether the service has answered the call, and so has logged it.
    """

    def __init__(
        self,
        status: Status,
        http_status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        is_logged: bool = False,
    ) -> None:
        super().__init__(status.message)
        self.status = status
        self.is_logged = is_logged
        self.http_status = http_status or _HTTP_STATUSES.get(status.code, HTTPStatus.INTERNAL_SERVER_ERROR)
        self.headers = headers


def malformed(message: str, http_status: int | None = None, headers: tuple[tuple[str, str], ...] = ()) -> CallFailed:
    """Return the failure of a request that is not one of any method: MALFORMED_REQUEST."""
    return CallFailed(_known(MalformedRequest([FieldViolation("", message)], message)), http_status, headers)


def invalid_field(path: str, problem: str) -> CallFailed:
    """Return the failure of a request with a wrong field: INVALID_FIELD."""
    message = "" if path else f"the request: {problem}"
    return CallFailed(_known(InvalidField([FieldViolation(path, problem)], message)))


def too_large(max_bytes: int) -> CallFailed:
    """Return the failure of a request whose body is too large."""
    message = f"the request must have at most {max_bytes} bytes"
    error = InvalidField([FieldViolation("", message)], message)
    return CallFailed(_known(error), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def refused_for_load() -> CallFailed:
    """Return the failure of a call for which this port has no room: OVERLOADED."""
    return CallFailed(overloaded(_RETRY_SECONDS))


def _known(error: Exception) -> Status:
    status = status_of(error)
    assert status is not None, "it is an error of the domain"  # noqa: S101 - for the type checker
    return status


def status_json(status: Status) -> dict[str, object]:
    """Return a status in protobuf's JSON format, with its details decoded.

    >>> status_json(Status(code=5, message="no user has this id"))
    {'code': 5, 'message': 'no user has this id', 'details': []}
    """
    details = [{"@type": detail.type_url, **decoded(detail)} for detail in status.details]
    return {"code": status.code, "message": status.message, "details": details}


def status_bytes(status: Status) -> bytes:
    """Return a status as the body of a response."""
    return json.dumps(status_json(status), ensure_ascii=False, separators=(",", ":")).encode()


def decoded(detail: Any) -> dict[str, Any]:  # noqa: ANN401 - a google.protobuf.Any; its class exists only in type stubs
    """Return the content of a detail in protobuf's JSON format; nothing of a message that is not a known detail."""
    kind = _DETAILS.get(detail.TypeName())
    if kind is None:
        return {}
    try:
        content: dict[str, Any] = MessageToDict(kind.FromString(detail.value))
    except (ParseError, ValueError):
        return {}
    return content


def retry_after(status: Status) -> tuple[tuple[str, str], ...]:
    """Return the header Retry-After, in whole seconds, if a status says when to retry."""
    for detail in status.details:
        info = RetryInfo()
        if detail.Unpack(info):
            return (("retry-after", str(_whole_seconds(info.retry_delay))),)
    return ()


def _whole_seconds(delay: Duration) -> int:
    return max(1, math.ceil(delay.seconds + delay.nanos / 1e9))
