"""What is known of a failed call, and the base class of all errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Self, TypeVar

from grpc import StatusCode

Error = TypeVar("Error", bound="CommerceError")


class Outcome(StrEnum):
    """Whether a failed call changed anything."""

    NOT_WRITTEN = "not_written"
    """Nothing was changed."""
    UNKNOWN = "unknown"
    """The change may have been made. Repeat the call with the same `request_id` to learn it."""
    WRITTEN = "written"
    """Something was changed, for example the first rows of an import."""


OUTCOME_TEXT = {
    Outcome.NOT_WRITTEN: "nothing was written",
    Outcome.UNKNOWN: "the write may have happened",
    Outcome.WRITTEN: "a part was written",
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that breaks a rule.

    Attributes:
        field: the path of the field, such as `order.items[0].quantity`.
        description: what is wrong with it.
        rule: the name of the rule.
    """

    field: str
    description: str
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is known of a failed call. To raise an error in a test: `InsufficientCredit(Failure(message="…"))`.

    Attributes:
        message: what went wrong, in words.
        code: the gRPC code.
        reason: the reason as the service names it, such as `INSUFFICIENT_CREDIT`; empty if the error does not come
            from the service itself.
        metadata: the variable parts of the error.
        violations: the fields that break a rule.
        resource_type: the full name of the message of the resource that is missing or exists already.
        resource_name: the name or id of that resource.
        retry_after: seconds after which the server asks to repeat the call.
        may_retry: False if the server asks not to repeat the call.
        outcome: whether the call changed anything.
        method: the path of the method.
        x_request_id: the id under which the server logs the call.
        attempts: how many times the call was sent.
        trailers: the trailing metadata whose values are text.
    """

    message: str
    code: StatusCode = StatusCode.UNKNOWN
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    resource_type: str = ""
    resource_name: str = ""
    retry_after: float | None = None
    may_retry: bool = True
    outcome: Outcome = Outcome.UNKNOWN
    method: str = ""
    x_request_id: str = ""
    attempts: int = 1
    trailers: Mapping[str, str] = field(default_factory=dict)


class CommerceError(Exception):
    """A call failed.

    Attributes:
        failure: all that is known of it.
        reason: the reason as the service names it, such as `INSUFFICIENT_CREDIT`, or empty.
    """

    reason: str = ""
    default_code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init__(self, failure: Failure | str) -> None:
        if isinstance(failure, str):
            failure = Failure(message=failure, code=self.default_code, reason=self.reason)
        super().__init__(failure)
        self.failure = failure
        self.reason = failure.reason or self.reason

    @property
    def message(self) -> str:
        """What went wrong, in words."""
        return self.failure.message

    @property
    def code(self) -> StatusCode:
        """The gRPC code."""
        return self.failure.code

    @property
    def metadata(self) -> Mapping[str, str]:
        """The variable parts of the error."""
        return self.failure.metadata

    @property
    def outcome(self) -> Outcome:
        """Whether the call changed anything."""
        return self.failure.outcome

    @property
    def error_id(self) -> str:
        """The id under which the server has logged an internal error; empty for other errors."""
        return self.metadata.get("error_id", "")

    @property
    def x_request_id(self) -> str:
        """The id under which the server logs the call."""
        return self.failure.x_request_id

    @property
    def last_committed_row(self) -> int | None:
        """Of an import: the number of the last row that is known to be processed; None for other calls."""
        row = self.metadata.get("last_committed_row")
        return None if row is None else int(row)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server asks to repeat the call; None if it says nothing."""
        return self.failure.retry_after

    def with_failure(self, **changes: object) -> Self:
        """Return the same error with some attributes of its failure replaced."""
        changed = type(self)(replace(self.failure, **changes))  # type: ignore[arg-type] # any attributes
        changed.__cause__, changed.__traceback__ = self.__cause__, self.__traceback__
        return changed

    def __str__(self) -> str:
        failure = self.failure
        facts = [failure.method.rpartition("/")[2], OUTCOME_TEXT[failure.outcome]]
        if failure.attempts > 1:
            facts.append(f"{failure.attempts} attempts")
        if self.error_id:
            facts.append(f"error_id {self.error_id}")
        if failure.x_request_id:
            facts.append(f"x-request-id {failure.x_request_id}")
        return f"{self.reason or failure.code.name}: {failure.message} [{'; '.join(filter(None, facts))}]"
