"""Errors that a client can cause. They do not depend on gRPC; `service.rpc.status` maps each to its status code.

    DomainError
    ├── InvalidArgument           a value is wrong, regardless of the stored data
    │   ├── MalformedRequest, InvalidField, InvalidUpdateMask, InvalidPageToken, InvalidCursor, RequestIdReused
    │   └── UnknownCurrency, MixedCurrencies, TooManyDecimals, AmountOutOfRange
    ├── NotFound                  UserNotFound, OrderNotFound, NoteNotFound
    ├── AlreadyExists             UserAlreadyExists, OrderAlreadyExists
    ├── FailedPrecondition        IllegalTransition, UserNotActive, UserDeleted, UserInUse, OrderNotPending,
    │                             InsufficientCredit
    ├── EtagMismatch
    ├── CursorExpired
    ├── InvalidCredentials, SignInLimited
    ├── PermissionMissing         the policy does not allow the caller to do this
    ├── UnauthenticatedCaller     nobody is known to make the call
    └── SlowConsumer, ServerDraining    the server ends a watch; the metadata has the cursor to continue from

Messages and metadata reach clients and logs, so they contain no e-mail, secret or class name.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

# A status is sent in headers, which must be short; one reference of a hundred characters always fits.
_MAX_REFERENCES_BYTES = 800


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field: its path in the request (`order.items[2].unit_price`), the problem, and the violated rule."""

    field: str
    description: str
    rule: str = ""


class DomainError(Exception):
    """Base of all domain errors. `reason` is a value of `commerce.common.v1.ErrorReason` without its prefix."""

    reason: ClassVar[str]

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidArgument(DomainError):
    """A value is wrong, regardless of the stored data; `violations` names the fields."""

    def __init__(self, violations: Iterable[FieldViolation], message: str = "") -> None:
        self.violations = tuple(violations)
        super().__init__(message or "; ".join(f"{v.field}: {v.description}" for v in self.violations[:3]))

    @classmethod
    def at(cls, field: str, description: str) -> "InvalidArgument":
        """Return the error for one field."""
        return cls([FieldViolation(field, description, cls.reason)])


class MalformedRequest(InvalidArgument):
    """The request cannot be parsed as its message."""

    reason = "MALFORMED_REQUEST"


class InvalidField(InvalidArgument):
    """A field has an invalid value."""

    reason = "INVALID_FIELD"


class InvalidUpdateMask(InvalidArgument):
    """An update mask names a field that does not exist or cannot be set."""

    reason = "INVALID_UPDATE_MASK"


class InvalidPageToken(InvalidArgument):
    """A page token is damaged, forged, or belongs to other arguments."""

    reason = "INVALID_PAGE_TOKEN"


class InvalidCursor(InvalidArgument):
    """The cursor of a watch is damaged, forged, or belongs to another service."""

    reason = "INVALID_CURSOR"


class RequestIdReused(InvalidArgument):
    """A request id is used again with a different request body."""

    reason = "REQUEST_ID_REUSED"


class UnknownCurrency(InvalidArgument):
    """A currency is not in ISO 4217, or has no minor unit there."""

    reason = "UNKNOWN_CURRENCY"


class MixedCurrencies(InvalidArgument):
    """Amounts that must be added have different currencies."""

    reason = "MIXED_CURRENCIES"


class TooManyDecimals(InvalidArgument):
    """An amount has more decimals than its currency."""

    reason = "TOO_MANY_DECIMALS"


class AmountOutOfRange(InvalidArgument):
    """An amount, or a sum, is negative or too large to store."""

    reason = "AMOUNT_OUT_OF_RANGE"


class NotFound(DomainError):
    """No resource has the requested key. `resource_type` is the full name of the resource's message."""

    resource_type: ClassVar[str]

    def __init__(self, name: str = "", metadata: Mapping[str, str] | None = None) -> None:
        self.name = name
        kind = _words(self.resource_type)
        super().__init__(f"{kind} {name} not found" if name else f"{kind} not found", metadata)


class UserNotFound(NotFound):
    """The user does not exist."""

    reason = "USER_NOT_FOUND"
    resource_type = "commerce.users.v1.User"


class OrderNotFound(NotFound):
    """The order does not exist."""

    reason = "ORDER_NOT_FOUND"
    resource_type = "commerce.orders.v1.Order"


class NoteNotFound(NotFound):
    """The order note does not exist."""

    reason = "NOTE_NOT_FOUND"
    resource_type = "commerce.orders.v1.OrderNote"


class AlreadyExists(DomainError):
    """Another resource has the same value in the unique field `field`."""

    resource_type: ClassVar[str]

    def __init__(self, field: str) -> None:
        self.field = field
        kind = _words(self.resource_type)
        super().__init__(f"another {kind} has this {field}", {"field": field})


class UserAlreadyExists(AlreadyExists):
    """The e-mail or username belongs to another user."""

    reason = "USER_ALREADY_EXISTS"
    resource_type = "commerce.users.v1.User"


class OrderAlreadyExists(AlreadyExists):
    """The user has another order with this external reference that is not cancelled."""

    reason = "ORDER_ALREADY_EXISTS"
    resource_type = "commerce.orders.v1.Order"

    @classmethod
    def of_both_users(cls, references: Sequence[str], count: int) -> "OrderAlreadyExists":
        """Return the error of a transfer between users who share `count` references, some of which are given."""
        error = cls("external_ref")
        error.message = (
            f"both users have an order with the same external_ref, {count} in all; see the metadata external_refs;"
            " change or cancel one order of each pair"
        )
        # JSON, because a reference may contain any character.
        named = list(references)
        while len((text := json.dumps(named, ensure_ascii=False)).encode()) > _MAX_REFERENCES_BYTES:
            named.pop()
        error.metadata |= {"external_refs": text, "count": str(count)}
        return error


class FailedPrecondition(DomainError):
    """The state of the resource `subject` (`orders/<id>`) does not allow the call."""

    def __init__(self, subject: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        self.subject = subject
        super().__init__(message, metadata)


class IllegalTransition(FailedPrecondition):
    """The transition table has no such transition; the metadata has the state and the allowed next states."""

    reason = "ILLEGAL_TRANSITION"

    def __init__(self, subject: str, transition: str, current: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        message = f"cannot {transition} in state {current}; allowed next states: {names or 'none'}"
        super().__init__(subject, message, {"state": current, "allowed": names})


class UserNotActive(FailedPrecondition):
    """The state of the user does not allow placing orders or writing notes."""

    reason = "USER_NOT_ACTIVE"


class UserDeleted(FailedPrecondition):
    """The user is deleted and cannot be changed."""

    reason = "USER_DELETED"


class OrderNotPending(FailedPrecondition):
    """The order is not PENDING, so it can no longer be changed."""

    reason = "ORDER_NOT_PENDING"


class UserInUse(FailedPrecondition):
    """The user has open orders or credit."""

    reason = "USER_IN_USE"


class InsufficientCredit(FailedPrecondition):
    """The user has less credit than the call needs."""

    reason = "INSUFFICIENT_CREDIT"


class EtagMismatch(DomainError):
    """The resource has changed since the client read it."""

    reason = "ETAG_MISMATCH"


class PermissionMissing(DomainError):
    """The caller lacks a permission; the answer is the same whether or not what it asked for exists."""

    reason = "PERMISSION_MISSING"


class InvalidCredentials(DomainError):
    """No active user has this name and password. The error does not say which of the two is wrong."""

    reason = "INVALID_CREDENTIALS"


class SignInLimited(DomainError):
    """Too many attempts to sign in were made without success; `retry_seconds` says how long to wait."""

    reason = "SIGN_IN_LIMIT"

    def __init__(self, retry_seconds: int) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(
            "too many attempts to sign in with this login; the password was not checked;"
            f" wait {retry_seconds} second{'s' if retry_seconds > 1 else ''}"
        )


class UnauthenticatedCaller(DomainError):
    """Nobody is known to make the call; the metadata has the kind of credential and the problem with it."""

    reason = "UNAUTHENTICATED_CALLER"


class CursorExpired(DomainError):
    """Events after the cursor of a watch have been deleted, or the database was restored since."""

    reason = "CURSOR_EXPIRED"


class SlowConsumer(DomainError):
    """A watcher reads events more slowly than they are written."""

    reason = "SLOW_CONSUMER"


class ServerDraining(DomainError):
    """The server of a watch is shutting down."""

    reason = "SERVER_DRAINING"


def _words(resource_type: str) -> str:
    """Return the name of a resource's message as words: `order note`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", resource_type.rpartition(".")[2]).lower()
