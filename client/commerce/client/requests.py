"""One call as both clients prepare it: its options, its metadata, its `request_id` and its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from grpc import StatusCode

from commerce.client.errors import UnauthenticatedCaller, error_of
from commerce.client.failures import Failure, Outcome
from commerce.client.options import AnyOptions, Metadata, metadata_of
from commerce.client.retries import Attempts, RetryBudget, RetryPolicy
from commerce.client.statuses import FailedCall, error_from

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from commerce.client.failures import CommerceError
    from commerce.client.methods import Method
    from commerce.client.telemetry import CallTelemetry

_DEFAULT_POLICY = RetryPolicy()


class PreparedCall:
    """A call that is about to be sent.

    Args:
        method: of the call.
        request: of the call.
        options: all options, with their defaults.
        budget: of retries.
        static_metadata: of all calls of the client.
        telemetry: starts the span of the call; None if there are no spans.

    Attributes:
        attempts: when it is repeated.
        metadata: without the token.
        span: of the call, which its caller ends; None if there are no spans.
    """

    __slots__ = ("_method", "_token_refused", "_x_request_id", "attempts", "metadata", "span")

    def __init__(
        self,
        method: Method[Any, Any],
        request: Message,
        options: AnyOptions,
        budget: RetryBudget,
        static_metadata: Metadata,
        telemetry: CallTelemetry | None = None,
    ) -> None:
        self._method = method
        self._token_refused = False
        metadata, self._x_request_id = metadata_of(options, reads=method.reads)
        self.metadata = (*metadata, *static_metadata)
        self.attempts = Attempts(
            options.get("retry", _DEFAULT_POLICY),
            budget,
            total=options["timeout"],
            each=options["attempt_timeout"],
            repeatable=method.reads or _is_repeatable(method, request),
        )
        self.span = telemetry.start(method) if telemetry is not None else None
        if self.span is not None:
            self.metadata = self.span.added_to(self.metadata)

    def with_token(self, header: tuple[str, str] | None) -> Metadata:
        """Return the metadata with the token."""
        return self.metadata if header is None else (*self.metadata, header)

    def error(self, failed: FailedCall) -> CommerceError:
        """Return the error of an attempt."""
        error = error_from(failed, path=self._method.path, x_request_id=self._x_request_id, reads=self._method.reads)
        error.__cause__ = failed if isinstance(failed, BaseException) else None
        return error

    def closed_error(self) -> CommerceError:
        """Return the error of an attempt that ended because the client was closed."""
        failure = Failure(
            message="the client was closed while the call ran",
            code=StatusCode.CANCELLED,
            outcome=Outcome.NOT_WRITTEN if self._method.reads else Outcome.UNKNOWN,
            method=self._method.path,
            x_request_id=self._x_request_id,
            attempts=self.attempts.number,
        )
        return error_of(failure)

    def wants_new_token(self, error: CommerceError) -> bool:
        """Return whether the attempt failed because of its token, which happens once in a call at most."""
        if self._token_refused or not (isinstance(error, UnauthenticatedCaller) and error.credential == "bearer token"):
            return False
        self._token_refused = True
        return True


def with_request_id(method: Method[Any, Any], request: Any) -> None:
    """Give a request an id with which it can be repeated, unless it has one or writes nothing."""
    if method.takes_request_id and not request.request_id and not request.validate_only:
        request.request_id = str(uuid4())


def _is_repeatable(method: Method[Any, Any], request: Any) -> bool:
    return method.takes_request_id and bool(request.request_id or request.validate_only)
