"""The errors of the clients, for every error that the service can return."""

import pickle
import re
from typing import Any

import grpc
import pytest
from commerce.client import errors
from commerce.client.errors import ERRORS_BY_REASON, ClientTimeout, CommerceError, Unavailable
from commerce.client.failures import Outcome
from commerce.client.statuses import error_from
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from service.domain.errors import (
    CursorExpired,
    FieldViolation,
    IllegalTransition,
    InvalidField,
    OrderAlreadyExists,
    SignInLimited,
    UnauthenticatedCaller,
    UserNotFound,
)
from service.rpc.status import internal_error, overloaded, status_of
from tests.rpc.test_status import PROTO, REASONS


class FailedCall:
    """A call that ended with this status, as gRPC reports it."""

    def __init__(self, status: Status | None, code: grpc.StatusCode, **trailers: str | bytes) -> None:
        self._status, self._code, self._trailers = status, code, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._status.message if self._status else "what gRPC says"

    def trailing_metadata(self) -> list[tuple[str, str | bytes]]:
        sent: list[tuple[str, str | bytes]] = [(key.replace("_", "-"), value) for key, value in self._trailers.items()]
        if self._status:
            sent += rpc_status.to_status(self._status).trailing_metadata
        return sent


def error_for(status: Status | None, code: grpc.StatusCode | None = None, **trailers: str | bytes) -> CommerceError:
    """Return the client's error for a status of a mutation."""
    if status is not None and code is None:
        code = rpc_status.to_status(status).code
    call = FailedCall(status, code or grpc.StatusCode.UNKNOWN, **trailers)
    return error_from(call, path="/commerce.users.v1.UserService/UpdateUser", x_request_id="made-here", reads=False)


def of(error: Exception) -> Any:
    """Return the client's error for an error of the service."""
    status = status_of(error)
    assert status is not None
    return error_for(status)


def test_every_reason_has_a_class_below_that_of_its_code() -> None:
    assert set(ERRORS_BY_REASON) == set(REASONS)
    found = re.findall(r"// ([A-Z_]+): [^\n]*(?:\n\s*//[^\n]*)*\n\s*ERROR_REASON_([A-Z_]+) =", PROTO.read_text())
    assert len(found) == len(REASONS)
    for code, reason in found:
        assert ERRORS_BY_REASON[reason].default_code.name == code, reason


def test_the_docstring_of_the_module_names_every_class() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CommerceError)}
    assert errors.__doc__
    assert kinds - set(re.findall(r"\w+", errors.__doc__)) == set()


def test_a_reason_that_the_client_does_not_know_has_the_class_of_its_code() -> None:
    status = Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="the moon is not full")
    status.details.add().Pack(ErrorInfo(reason="MOON_NOT_FULL", domain="commerce"))
    error = error_for(status)
    assert type(error) is errors.FailedPrecondition
    assert (error.reason, error.outcome) == ("MOON_NOT_FULL", Outcome.NOT_WRITTEN)
    assert str(error).startswith("MOON_NOT_FULL: the moon is not full [UpdateUser; nothing was written;")


def test_an_error_info_of_another_domain_is_not_the_services() -> None:
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="no healthy upstream")
    status.details.add().Pack(ErrorInfo(reason="OVERLOADED", domain="proxy.example.com"))
    error = error_for(status)
    assert type(error) is Unavailable
    assert (error.reason, error.outcome) == ("", Outcome.UNKNOWN)


def test_details_that_cannot_be_read_are_ignored() -> None:
    error = error_for(None, grpc.StatusCode.INTERNAL, **{"grpc-status-details-bin": b"\xff\xff"})
    assert type(error) is errors.Internal
    assert error.outcome is Outcome.UNKNOWN


def test_attributes_say_what_the_details_say() -> None:
    invalid = of(InvalidField([FieldViolation("user.email", "must be an address", "STRING_EMAIL")]))
    assert invalid.violations == (errors.FieldViolation("user.email", "must be an address", "STRING_EMAIL"),)
    missing = of(UserNotFound("ada"))
    assert (missing.resource, missing.resource_type) == ("ada", "commerce.users.v1.User")
    transition = of(IllegalTransition("orders/1", "ship", "PENDING", ["CONFIRMED", "CANCELLED"]))
    assert (transition.state, transition.allowed) == ("PENDING", ("CONFIRMED", "CANCELLED"))
    assert of(IllegalTransition("orders/1", "ship", "DELIVERED", [])).allowed == ()
    both = of(OrderAlreadyExists.of_both_users(["a", "b"], 2))
    assert (both.external_refs, both.field) == (("a", "b"), "external_ref")
    assert of(CursorExpired("gone", {"earliest_cursor": "c1"})).earliest == "c1"
    caller = of(UnauthenticatedCaller("who?", {"credential": "bearer token", "problem": "expired"}))
    assert (caller.credential, caller.problem) == ("bearer token", "expired")
    assert of(SignInLimited(60)).retry_after == 60
    assert error_for(internal_error("e-1")).error_id == "e-1"


def test_the_push_back_counts_more_than_the_details() -> None:
    assert error_for(overloaded(0.5)).retry_after == 0.5
    assert error_for(overloaded(0.5), grpc_retry_pushback_ms="700").retry_after == 0.7
    for forbidding in ("-1", "soon"):
        assert not error_for(overloaded(0.5), grpc_retry_pushback_ms=forbidding).failure.may_retry


@pytest.mark.parametrize("kind", [ERRORS_BY_REASON[reason] for reason in sorted(ERRORS_BY_REASON)])
def test_whether_the_write_happened_follows_from_the_reason(kind: type[CommerceError]) -> None:
    status = Status(code=kind.default_code.value[0], message="what is wrong")
    status.details.add().Pack(ErrorInfo(reason=kind.reason, domain="commerce"))
    error = error_for(status)
    assert type(error) is kind
    expected = Outcome.UNKNOWN if kind is errors.OutcomeUnknown else Outcome.NOT_WRITTEN
    assert error.outcome is expected


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_has_a_class_and_without_a_reason_the_outcome_is_unknown(code: grpc.StatusCode) -> None:
    error = error_for(None, code)
    assert (error.code, error.outcome) == (code, Outcome.UNKNOWN)
    named = type(error).__name__.lower()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        assert type(error) is ClientTimeout
    elif code is grpc.StatusCode.CANCELLED:
        assert type(error) is Unavailable
    elif code in {grpc.StatusCode.OK, grpc.StatusCode.DATA_LOSS}:
        assert type(error) is CommerceError
    else:
        assert named == code.name.replace("_", "").lower()


def test_a_read_has_written_nothing_however_it_fails() -> None:
    call = FailedCall(None, grpc.StatusCode.UNAVAILABLE)
    error = error_from(call, path="/commerce.users.v1.UserService/GetUser", x_request_id="", reads=True)
    assert error.outcome is Outcome.NOT_WRITTEN


def test_the_text_has_what_a_report_needs() -> None:
    error = error_for(internal_error("e-1"), x_request_id="r-1").with_failure(attempts=3)
    assert (
        str(error)
        == "INTERNAL: internal error [UpdateUser; nothing was written; 3 attempts; error_id e-1; x-request-id r-1]"
    )
    # Without an answer, it is the id that the call was sent with.
    assert "x-request-id made-here]" in str(error_for(None, grpc.StatusCode.UNAVAILABLE))


@pytest.mark.parametrize("kind", [*ERRORS_BY_REASON.values(), ClientTimeout, errors.CredentialsError, CommerceError])
def test_errors_can_be_pickled_and_raised_in_tests(kind: type[CommerceError]) -> None:
    error = kind("what is wrong")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert (type(copy), copy.failure, str(copy)) == (kind, error.failure, str(error))
    assert copy.reason == kind.reason


def test_time_outs_are_time_outs_for_python_too() -> None:
    assert issubclass(ClientTimeout, TimeoutError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert not issubclass(ClientTimeout, errors.DeadlineExceeded)
