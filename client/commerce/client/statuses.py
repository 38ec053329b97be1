"""From what gRPC raises to the errors of this package (AIP-193)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from commerce.client.errors import error_of
from commerce.client.failures import CommerceError, Failure, FieldViolation, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpc import StatusCode

DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"
_DOMAIN = "commerce"


class FailedCall(Protocol):
    """What both of gRPC's stacks raise."""

    def code(self) -> StatusCode:
        """Return the code."""

    def details(self) -> str | None:
        """Return the message."""

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata."""


def error_from(call: FailedCall, *, path: str, x_request_id: str, reads: bool) -> CommerceError:
    """Return the error for a failed call.

    Args:
        call: what gRPC raised.
        path: of the method.
        x_request_id: that the call was sent with.
        reads: whether the method has no side effects, so that it cannot have written anything.
    """
    trailers = dict(call.trailing_metadata() or ())
    fields: dict[str, object] = {}
    details = trailers.get(DETAILS)
    if isinstance(details, bytes):
        fields = _fields_of(details)
    reason = fields.get("reason", "")
    written = Outcome.NOT_WRITTEN if reads or reason not in {"", "OUTCOME_UNKNOWN"} else Outcome.UNKNOWN
    failure = Failure(
        **{
            "message": call.details() or call.code().name,
            "code": call.code(),
            "outcome": written,
            "method": path,
            "x_request_id": str(trailers.get("x-request-id", x_request_id)),
            "trailers": {key: value for key, value in trailers.items() if isinstance(value, str)},
            **fields,
            **_pushback(trailers.get(PUSHBACK)),
        }  # type: ignore[arg-type] # fields of different types
    )
    return error_of(failure)


def _pushback(value: str | bytes | None) -> Mapping[str, object]:
    """Return what the push-back says; one that is negative or no number forbids a retry (gRFC A6)."""
    if value is None:
        return {}
    try:
        milliseconds = int(value)
    except ValueError:
        milliseconds = -1
    return {"retry_after": milliseconds / 1000} if milliseconds >= 0 else {"may_retry": False}


def _fields_of(details: bytes) -> dict[str, object]:
    """Return the fields of a Failure that the details of a status give."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
    from google.rpc.status_pb2 import Status

    fields: dict[str, object] = {}
    try:
        status = Status.FromString(details)
        for detail in status.details:
            info, bad, resource, retry = ErrorInfo(), BadRequest(), ResourceInfo(), RetryInfo()
            if detail.Unpack(info):
                # A proxy in between may send an ErrorInfo of its own.
                if info.domain == _DOMAIN:
                    fields |= {"reason": info.reason, "metadata": dict(info.metadata)}
            elif detail.Unpack(bad):
                fields["violations"] = tuple(
                    FieldViolation(violation.field, violation.description, violation.reason)
                    for violation in bad.field_violations
                )
            elif detail.Unpack(resource):
                fields |= {"resource_type": resource.resource_type, "resource_name": resource.resource_name}
            elif detail.Unpack(retry):
                fields["retry_after"] = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        # Not from the service: its status has an ErrorInfo.
        return {}
    return fields
