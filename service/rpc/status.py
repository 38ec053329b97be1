"""Maps errors to statuses: a table of codes, and details in the messages of google.rpc (AIP-193).

The size of a status is bounded: with more than about 8 KB of trailers, clients fail some calls with an error of their
own.
"""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.application.ports.errors import (
    CommitTimedOut,
    Contention,
    DatabaseUnavailable,
    DeadlineExceeded,
    ExportStalled,
    OutcomeUnknown,
    Overloaded,
)
from service.domain.errors import (
    AlreadyExists,
    CursorExpired,
    DomainError,
    EtagMismatch,
    FailedPrecondition,
    InvalidArgument,
    InvalidCredentials,
    NotFound,
    PermissionMissing,
    ServerDraining,
    SignInLimited,
    SlowConsumer,
    UnauthenticatedCaller,
)

DOMAIN = "commerce"
INTERNAL, OVERLOADED = "INTERNAL", "OVERLOADED"
MAX_MESSAGE_BYTES = 1000
# The maximum size of all field violations together; the other details are small.
_MAX_VIOLATIONS_BYTES = 2000
_MAX_TEXT = 200


class ResponseTooLarge(Exception):
    """The response would be too large for one message; nothing was written."""


class IssuerUnavailable(Exception):
    """A token cannot be verified, because the keys of its issuer have not been loaded yet; nothing was written."""


_CODES: Mapping[type[DomainError], int] = MappingProxyType(
    {
        InvalidArgument: Code.INVALID_ARGUMENT,
        NotFound: Code.NOT_FOUND,
        AlreadyExists: Code.ALREADY_EXISTS,
        FailedPrecondition: Code.FAILED_PRECONDITION,
        EtagMismatch: Code.ABORTED,
        InvalidCredentials: Code.UNAUTHENTICATED,
        SignInLimited: Code.RESOURCE_EXHAUSTED,
        PermissionMissing: Code.PERMISSION_DENIED,
        UnauthenticatedCaller: Code.UNAUTHENTICATED,
        CursorExpired: Code.OUT_OF_RANGE,
        SlowConsumer: Code.RESOURCE_EXHAUSTED,
        ServerDraining: Code.UNAVAILABLE,
    }
)
# Errors outside the domain: code, reason, message, and the seconds after which a retry may succeed (0: no retry).
_OTHERS: Mapping[type[Exception], tuple[int, str, str, float]] = MappingProxyType(
    {
        Contention: (
            Code.ABORTED,
            "CONTENTION",
            "other calls were changing the same data; nothing was written",
            0.2,
        ),
        DatabaseUnavailable: (
            Code.UNAVAILABLE,
            "DATABASE_UNAVAILABLE",
            "the database cannot be reached; nothing was written",
            1,
        ),
        # Listed before its base class, because the first matching class decides.
        CommitTimedOut: (
            Code.UNKNOWN,
            "OUTCOME_UNKNOWN",
            "the commit did not finish in time; the write may have happened. Retry with the same request_id.",
            0,
        ),
        OutcomeUnknown: (
            Code.UNKNOWN,
            "OUTCOME_UNKNOWN",
            "connection lost during commit; the write may have happened. Retry with the same request_id.",
            0,
        ),
        DeadlineExceeded: (
            Code.DEADLINE_EXCEEDED,
            "DEADLINE_EXCEEDED",
            "the deadline of the call passed; nothing was written",
            0,
        ),
        IssuerUnavailable: (
            Code.UNAVAILABLE,
            "ISSUER_UNAVAILABLE",
            "the keys of the token's issuer cannot be loaded; nothing was written",
            5,
        ),
        Overloaded: (
            Code.RESOURCE_EXHAUSTED,
            OVERLOADED,
            "server overloaded: the queue for this operation is full; nothing was written",
            0.5,
        ),
        ExportStalled: (
            Code.ABORTED,
            "EXPORT_STALLED",
            "the client read too slowly; to go on, export from the create_time of the last resource received",
            0,
        ),
        ResponseTooLarge: (
            Code.RESOURCE_EXHAUSTED,
            "RESPONSE_TOO_LARGE",
            "the response is too large for one message; request less, for example fewer ids or a shorter time",
            0,
        ),
    }
)


def status_of(error: BaseException) -> Status | None:
    """Return the status of an error, or None for an error that clients must not see."""
    if isinstance(error, DomainError):
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        return _status(code, error.message, error.reason, error.metadata, *_details(error))
    for kind, (code, reason, message, retry_seconds) in _OTHERS.items():
        if not isinstance(error, kind):
            continue
        return _status(code, message, reason, {}, *([_retry_info(retry_seconds)] if retry_seconds else []))
    return None


def reason_of(error: BaseException) -> str:
    """Return the reason of an error, as its status has it: a name of the enum ErrorReason."""
    if isinstance(error, DomainError):
        return error.reason
    return next((reason for kind, (_, reason, _, _) in _OTHERS.items() if isinstance(error, kind)), INTERNAL)


def _retry_info(seconds: float) -> RetryInfo:
    return RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1000) * 1_000_000))


def overloaded(retry_seconds: float) -> Status:
    """Return the status of a call that is refused for load and may be repeated after some seconds."""
    code, reason, message, _ = _OTHERS[Overloaded]
    return _status(code, message, reason, {}, _retry_info(retry_seconds))


def internal_error(error_id: str) -> Status:
    """Return the status for an unexpected error; the log has the cause under `error_id`."""
    return _status(Code.INTERNAL, "internal error", INTERNAL, {"error_id": error_id})


def _status(code: int, message: str, reason: str, metadata: Mapping[str, str], *details: Message) -> Status:
    text = message[:MAX_MESSAGE_BYTES].encode("ascii", "replace").decode()
    status = Status(code=code, message=text)
    for detail in (ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata), *details):
        status.details.add().Pack(detail)
    return status


def _details(error: DomainError) -> list[Message]:
    if isinstance(error, InvalidArgument):
        return [_bad_request(error)]
    if isinstance(error, FailedPrecondition):
        violation = PreconditionFailure.Violation(type=error.reason, subject=error.subject, description=error.message)
        return [PreconditionFailure(violations=[violation])]
    if isinstance(error, NotFound):
        return [ResourceInfo(resource_type=error.resource_type, resource_name=error.name, description=error.message)]
    if isinstance(error, AlreadyExists):
        return [ResourceInfo(resource_type=error.resource_type, description=error.message)]
    if isinstance(error, SignInLimited):
        return [RetryInfo(retry_delay=Duration(seconds=error.retry_seconds))]
    return []


def _bad_request(error: InvalidArgument) -> BadRequest:
    bad_request = BadRequest()
    for violation in error.violations:
        if bad_request.ByteSize() > _MAX_VIOLATIONS_BYTES:
            break
        bad_request.field_violations.add(
            field=_short(violation.field), description=_short(violation.description), reason=violation.rule[:63]
        )
    return bad_request


def _short(text: str) -> str:
    """Return short ASCII for a text that may come from a client (the key of a map, the path of a mask)."""
    return text[:_MAX_TEXT].encode("ascii", "backslashreplace")[:_MAX_TEXT].decode()
