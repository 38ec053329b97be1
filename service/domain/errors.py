"""Errors that a caller can cause, as a tree. They know no gRPC; `service.rpc.status` gives each its code.

    DomainError
    ├── InvalidArgument           a value is wrong whatever is stored
    │   ├── MalformedRequest, InvalidField, InvalidUpdateMask, InvalidPageToken, InvalidCursor, RequestIdReused
    │   └── UnknownCurrency, MixedCurrencies, TooManyDecimals, AmountOutOfRange
    ├── NotFound                  UserNotFound, OrderNotFound, NoteNotFound
    ├── AlreadyExists             UserAlreadyExists, OrderAlreadyExists
    ├── FailedPrecondition        IllegalTransition, UserNotActive, UserDeleted, UserInUse, OrderNotPending,
    │                             InsufficientCredit
    ├── EtagMismatch
    ├── CursorExpired
    ├── InvalidCredentials
    └── SlowConsumer, ServerDraining    a watch is ended from this side; the metadata says where to go on

Messages and metadata reach callers and logs: they hold no e-mail, secret or class name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request (`order.items[2].unit_price`), what is wrong, and the rule's name."""

    field: str
    description: str
    rule: str = ""


class DomainError(Exception):
    """Base of all. `reason` is a value of `commerce.common.v1.ErrorReason` without its prefix."""

    reason: ClassVar[str]

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidArgument(DomainError):
    """A value is wrong whatever is stored; `violations` names the fields."""

    def __init__(self, violations: Iterable[FieldViolation], message: str = "") -> None:
        self.violations = tuple(violations)
        super().__init__(message or "; ".join(f"{v.field}: {v.description}" for v in self.violations[:3]))

    @classmethod
    def at(cls, field: str, description: str) -> "InvalidArgument":
        """Return the error for one field."""
        return cls([FieldViolation(field, description, cls.reason)])


class MalformedRequest(InvalidArgument):
    """The bytes of the request are not its message."""

    reason = "MALFORMED_REQUEST"


class InvalidField(InvalidArgument):
    """A field breaks a rule of its own."""

    reason = "INVALID_FIELD"


class InvalidUpdateMask(InvalidArgument):
    """An update mask names a field that does not exist or cannot be set."""

    reason = "INVALID_UPDATE_MASK"


class InvalidPageToken(InvalidArgument):
    """A page token is damaged, forged, or was given out for other arguments."""

    reason = "INVALID_PAGE_TOKEN"


class InvalidCursor(InvalidArgument):
    """The cursor of a watch is damaged, forged, or was given out by another service."""

    reason = "INVALID_CURSOR"


class RequestIdReused(InvalidArgument):
    """A request id comes again with another body."""

    reason = "REQUEST_ID_REUSED"


class UnknownCurrency(InvalidArgument):
    """A currency is not in ISO 4217, or has no minor unit there."""

    reason = "UNKNOWN_CURRENCY"


class MixedCurrencies(InvalidArgument):
    """Amounts that must be added have different currencies."""

    reason = "MIXED_CURRENCIES"


class TooManyDecimals(InvalidArgument):
    """An amount is more precise than its currency."""

    reason = "TOO_MANY_DECIMALS"


class AmountOutOfRange(InvalidArgument):
    """An amount, or a sum, is negative or too large to store."""

    reason = "AMOUNT_OUT_OF_RANGE"


class NotFound(DomainError):
    """Nothing has the key asked for. `resource_type` is the full name of the resource's message."""

    resource_type: ClassVar[str]

    def __init__(self, name: str = "", metadata: Mapping[str, str] | None = None) -> None:
        self.name = name
        kind = _words(self.resource_type)
        super().__init__(f"{kind} {name} not found" if name else f"{kind} not found", metadata)


class UserNotFound(NotFound):
    """No such user."""

    reason = "USER_NOT_FOUND"
    resource_type = "commerce.users.v1.User"


class OrderNotFound(NotFound):
    """No such order."""

    reason = "ORDER_NOT_FOUND"
    resource_type = "commerce.orders.v1.Order"


class NoteNotFound(NotFound):
    """No such order note."""

    reason = "NOTE_NOT_FOUND"
    resource_type = "commerce.orders.v1.OrderNote"


class AlreadyExists(DomainError):
    """Another resource has the same value in `field`, which must be unique."""

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
    """The user has another order with this external reference."""

    reason = "ORDER_ALREADY_EXISTS"
    resource_type = "commerce.orders.v1.Order"


class FailedPrecondition(DomainError):
    """The resource `subject` (`orders/<id>`) is in a state that does not allow the call."""

    def __init__(self, subject: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        self.subject = subject
        super().__init__(message, metadata)


class IllegalTransition(FailedPrecondition):
    """The transition table has no such step; the metadata names the state and the allowed next ones."""

    reason = "ILLEGAL_TRANSITION"

    def __init__(self, subject: str, verb: str, current: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        message = f"cannot {verb} what is {current}; allowed next: {names or 'none'}"
        super().__init__(subject, message, {"state": current, "allowed": names})


class UserNotActive(FailedPrecondition):
    """The user cannot place orders or write notes in its state."""

    reason = "USER_NOT_ACTIVE"


class UserDeleted(FailedPrecondition):
    """The user is deleted and cannot be changed."""

    reason = "USER_DELETED"


class OrderNotPending(FailedPrecondition):
    """The order can no longer be changed."""

    reason = "ORDER_NOT_PENDING"


class UserInUse(FailedPrecondition):
    """The user has open orders or credit."""

    reason = "USER_IN_USE"


class InsufficientCredit(FailedPrecondition):
    """The user has less credit than is needed."""

    reason = "INSUFFICIENT_CREDIT"


class EtagMismatch(DomainError):
    """The resource changed since the caller read it."""

    reason = "ETAG_MISMATCH"


class InvalidCredentials(DomainError):
    """No active user has this name and password; it does not say which is wrong."""

    reason = "INVALID_CREDENTIALS"


class CursorExpired(DomainError):
    """Events after the cursor of a watch are no longer kept."""

    reason = "CURSOR_EXPIRED"


class SlowConsumer(DomainError):
    """A watcher reads more slowly than events come."""

    reason = "SLOW_CONSUMER"


class ServerDraining(DomainError):
    """The server of a watch shuts down."""

    reason = "SERVER_DRAINING"


def _words(resource_type: str) -> str:
    """Return the name of a resource's message as words: `order note`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", resource_type.rpartition(".")[2]).lower()
