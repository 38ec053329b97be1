"""The errors that calls raise: a class for each reason of the services, below a class for each gRPC code.

    CommerceError
    ├── InvalidArgument: MalformedRequest, InvalidField, InvalidUpdateMask, InvalidPageToken, RequestIdReused,
    │                    UnknownCurrency, MixedCurrencies, TooManyDecimals, AmountOutOfRange, InvalidCursor
    ├── NotFound: UserNotFound, OrderNotFound, NoteNotFound
    ├── AlreadyExists: UserAlreadyExists, OrderAlreadyExists
    ├── FailedPrecondition: IllegalTransition, UserNotActive, UserDeleted, OrderNotPending, InsufficientCredit,
    │                       UserInUse
    ├── Unauthenticated: InvalidCredentials, UnauthenticatedCaller
    ├── PermissionDenied: PermissionMissing
    ├── Aborted: EtagMismatch, Contention, ExportStalled
    ├── OutOfRange: CursorExpired
    ├── ResourceExhausted: Overloaded, ResponseTooLarge, SignInLimit, SlowConsumer
    ├── Unavailable: DatabaseUnavailable, ServerDraining, IssuerUnavailable
    ├── DeadlineExceeded: the server stopped, because the time that it had was over
    ├── Unknown: OutcomeUnknown
    ├── Internal
    ├── Unimplemented
    ├── ClientTimeout: this client stopped waiting
    └── CredentialsError: no token could be had

A reason that this version of the client does not know raises the class of its code.
"""

import json
from collections.abc import Mapping

from grpc import StatusCode

from commerce.client.failures import CommerceError as CommerceError
from commerce.client.failures import Failure as Failure
from commerce.client.failures import FieldViolation as FieldViolation
from commerce.client.failures import Outcome as Outcome


class InvalidArgument(CommerceError):
    """The request is wrong in any state of the service."""

    default_code = StatusCode.INVALID_ARGUMENT

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The first fields that break a rule, by path."""
        return self.failure.violations


class MalformedRequest(InvalidArgument):
    """The bytes are not a request of this method."""

    reason = "MALFORMED_REQUEST"


class InvalidField(InvalidArgument):
    """A field breaks a rule; `violations` has each."""

    reason = "INVALID_FIELD"


class InvalidUpdateMask(InvalidArgument):
    """An update mask names a field that does not exist or that callers cannot set."""

    reason = "INVALID_UPDATE_MASK"


class InvalidPageToken(InvalidArgument):
    """A page token is damaged, or was made for a list with other arguments."""

    reason = "INVALID_PAGE_TOKEN"


class RequestIdReused(InvalidArgument):
    """The `request_id` was used before, for a call of the same method with another request."""

    reason = "REQUEST_ID_REUSED"


class UnknownCurrency(InvalidArgument):
    """The currency is not one of ISO 4217 with a minor unit."""

    reason = "UNKNOWN_CURRENCY"


class MixedCurrencies(InvalidArgument):
    """The items of an order have different currencies."""

    reason = "MIXED_CURRENCIES"


class TooManyDecimals(InvalidArgument):
    """An amount has more decimals than its currency."""

    reason = "TOO_MANY_DECIMALS"


class AmountOutOfRange(InvalidArgument):
    """An amount or a sum is negative or too large."""

    reason = "AMOUNT_OUT_OF_RANGE"


class InvalidCursor(InvalidArgument):
    """The cursor of a watch is damaged, or is one of another service."""

    reason = "INVALID_CURSOR"


class NotFound(CommerceError):
    """Something that the request names does not exist."""

    default_code = StatusCode.NOT_FOUND

    @property
    def resource(self) -> str:
        """The name or id of what is missing; empty if the server does not repeat it."""
        return self.failure.resource_name

    @property
    def resource_type(self) -> str:
        """The full name of its message, such as `commerce.users.v1.User`."""
        return self.failure.resource_type


class UserNotFound(NotFound):
    """No user has this id, e-mail address or username."""

    reason = "USER_NOT_FOUND"


class OrderNotFound(NotFound):
    """No order has this id or order number."""

    reason = "ORDER_NOT_FOUND"


class NoteNotFound(NotFound):
    """No order note has this id."""

    reason = "NOTE_NOT_FOUND"


class AlreadyExists(CommerceError):
    """Another resource has a value that must be unique."""

    default_code = StatusCode.ALREADY_EXISTS

    @property
    def field(self) -> str:
        """The field with the value: `email`, `username` or `external_ref`."""
        return self.metadata.get("field", "")

    @property
    def resource_type(self) -> str:
        """The full name of the message of the resource, such as `commerce.users.v1.User`."""
        return self.failure.resource_type


class UserAlreadyExists(AlreadyExists):
    """Another user, possibly a deleted one, has this e-mail address or username."""

    reason = "USER_ALREADY_EXISTS"


class OrderAlreadyExists(AlreadyExists):
    """The user has another order with this `external_ref` that is not cancelled."""

    reason = "ORDER_ALREADY_EXISTS"

    @property
    def external_refs(self) -> tuple[str, ...]:
        """For a transfer of orders: the first references that both users have."""
        return tuple(json.loads(self.metadata.get("external_refs", "[]")))


class FailedPrecondition(CommerceError):
    """The state of a resource does not allow the call."""

    default_code = StatusCode.FAILED_PRECONDITION


class IllegalTransition(FailedPrecondition):
    """The resource cannot change from its current state in this way."""

    reason = "ILLEGAL_TRANSITION"

    @property
    def state(self) -> str:
        """The current state, such as `PENDING`."""
        return self.metadata.get("state", "")

    @property
    def allowed(self) -> tuple[str, ...]:
        """The states that may follow it."""
        return tuple(filter(None, self.metadata.get("allowed", "").split(", ")))


class UserNotActive(FailedPrecondition):
    """The user is not ACTIVE, and can neither place orders nor write notes."""

    reason = "USER_NOT_ACTIVE"


class UserDeleted(FailedPrecondition):
    """The user is deleted, and cannot be changed."""

    reason = "USER_DELETED"


class OrderNotPending(FailedPrecondition):
    """The order is no longer PENDING, and cannot be changed."""

    reason = "ORDER_NOT_PENDING"


class InsufficientCredit(FailedPrecondition):
    """The user has less credit than the call needs."""

    reason = "INSUFFICIENT_CREDIT"


class UserInUse(FailedPrecondition):
    """The user has open orders or credit; `force` erases them too."""

    reason = "USER_IN_USE"


class Unauthenticated(CommerceError):
    """The service does not know the caller, or the password is wrong."""

    default_code = StatusCode.UNAUTHENTICATED


class InvalidCredentials(Unauthenticated):
    """No ACTIVE user has this login and password."""

    reason = "INVALID_CREDENTIALS"


class UnauthenticatedCaller(Unauthenticated):
    """The credential of this client is missing, unknown or expired."""

    reason = "UNAUTHENTICATED_CALLER"

    @property
    def credential(self) -> str:
        """The kind of credential, such as `bearer token`."""
        return self.metadata.get("credential", "")

    @property
    def problem(self) -> str:
        """What is wrong with it: `missing`, `unknown` or `expired`."""
        return self.metadata.get("problem", "")


class PermissionDenied(CommerceError):
    """The caller may not do this."""

    default_code = StatusCode.PERMISSION_DENIED


class PermissionMissing(PermissionDenied):
    """The caller lacks a permission, or has it only for what belongs to another user."""

    reason = "PERMISSION_MISSING"

    @property
    def permission(self) -> str:
        """The permission, such as `orders.write`."""
        return self.metadata.get("permission", "")

    @property
    def identity(self) -> str:
        """Who called, as the service knows it."""
        return self.metadata.get("identity", "")


class Aborted(CommerceError):
    """The call did not fit together with others."""

    default_code = StatusCode.ABORTED


class EtagMismatch(Aborted):
    """The resource has changed since its `etag` was read: read it again, and decide again."""

    reason = "ETAG_MISMATCH"


class Contention(Aborted):
    """Other calls kept changing the same data."""

    reason = "CONTENTION"


class ExportStalled(Aborted):
    """The export was read too slowly."""

    reason = "EXPORT_STALLED"


class OutOfRange(CommerceError):
    """What the request asks for is no longer there."""

    default_code = StatusCode.OUT_OF_RANGE


class CursorExpired(OutOfRange):
    """Events after the cursor of a watch have been deleted: read the resources themselves."""

    reason = "CURSOR_EXPIRED"

    @property
    def earliest(self) -> str:
        """The earliest cursor that can be watched from."""
        return self.metadata.get("earliest_cursor", "")


class ResourceExhausted(CommerceError):
    """A limit is reached."""

    default_code = StatusCode.RESOURCE_EXHAUSTED


class Overloaded(ResourceExhausted):
    """The server has more calls than it can answer soon."""

    reason = "OVERLOADED"


class ResponseTooLarge(ResourceExhausted):
    """The response does not fit into one message: ask for less."""

    reason = "RESPONSE_TOO_LARGE"


class SignInLimit(ResourceExhausted):
    """Too many attempts to sign in failed; `retry_after` says how many seconds the pause still takes."""

    reason = "SIGN_IN_LIMIT"


class SlowConsumer(ResourceExhausted):
    """A watch was read more slowly than events occurred."""

    reason = "SLOW_CONSUMER"

    @property
    def cursor(self) -> str:
        """Where to continue."""
        return self.metadata.get("cursor", "")


class Unavailable(CommerceError):
    """No server can be reached, or it is about to stop."""

    default_code = StatusCode.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """The server cannot reach its database."""

    reason = "DATABASE_UNAVAILABLE"


class ServerDraining(Unavailable):
    """The server of a watch is about to stop."""

    reason = "SERVER_DRAINING"

    @property
    def cursor(self) -> str:
        """Where to continue, at another server."""
        return self.metadata.get("cursor", "")


class IssuerUnavailable(Unavailable):
    """The server cannot load the keys with which it verifies tokens."""

    reason = "ISSUER_UNAVAILABLE"


class DeadlineExceeded(CommerceError, TimeoutError):
    """The server stopped, because the time that it had was over; it wrote nothing."""

    reason = "DEADLINE_EXCEEDED"
    default_code = StatusCode.DEADLINE_EXCEEDED


class Unknown(CommerceError):
    """What happened is not known."""

    default_code = StatusCode.UNKNOWN


class OutcomeUnknown(Unknown):
    """The server lost its database during a commit, so the write may have happened."""

    reason = "OUTCOME_UNKNOWN"


class Internal(CommerceError):
    """A bug in the service; `error_id` names the entry in its log."""

    reason = "INTERNAL"
    default_code = StatusCode.INTERNAL


class Unimplemented(CommerceError):
    """The server does not have the method: it is older than this client, or another service."""

    default_code = StatusCode.UNIMPLEMENTED


class ClientTimeout(CommerceError, TimeoutError):
    """This client stopped waiting, because `timeout` was over. `__cause__` is the failure before, if there was one."""

    default_code = StatusCode.DEADLINE_EXCEEDED


class CredentialsError(CommerceError):
    """The function that gives the client its token failed; `__cause__` has its error. Nothing was sent."""

    default_code = StatusCode.UNAUTHENTICATED


def _below(base: type[CommerceError]) -> list[type[CommerceError]]:
    return [kind for direct in base.__subclasses__() for kind in (direct, *_below(direct))]


ERRORS_BY_REASON: Mapping[str, type[CommerceError]] = {
    kind.reason: kind for kind in _below(CommerceError) if kind.reason
}
"""The class of each reason."""

_BY_CODE: Mapping[StatusCode, type[CommerceError]] = {
    **{
        kind.default_code: kind
        for kind in CommerceError.__subclasses__()
        if kind not in {ClientTimeout, CredentialsError}
    },
    # A server that stops ends calls with CANCELLED: only a call that this client cancelled itself ends otherwise.
    StatusCode.CANCELLED: Unavailable,
}


def error_of(failure: Failure) -> CommerceError:
    """Return the error for a failure: by its reason, or else by its code."""
    kind = ERRORS_BY_REASON.get(failure.reason) or _BY_CODE.get(failure.code, CommerceError)
    if kind is DeadlineExceeded and not failure.reason:
        # gRPC itself says so when this client's deadline has passed.
        kind = ClientTimeout
    return kind(failure)
