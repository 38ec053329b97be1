"""How the failure of a statement is classified, for all states that a connection can be in."""

import asyncio

import asyncpg
import pytest

from service.db.connections.failures import Failure, Outcome, classify_failure

KEEP, DISCARD = False, True


def reported(sqlstate: str, *, function: str | None = None) -> asyncpg.PostgresError:
    """Return the error that asyncpg makes of a report of the server, whose source names its function."""
    fields = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": "no", **({"R": function} if function else {})}
    error = asyncpg.PostgresError.new(fields)
    assert isinstance(error, asyncpg.PostgresError)
    return error


def after(cause: BaseException, error: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


LAST_REPORT = reported("57P01", function="ProcessInterrupts")
PGBOUNCER_REPORT = reported("08P01")

CONNECTION_ERRORS = [
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.InternalClientError("got result for unknown protocol state"),
    ConnectionResetError(),
    TimeoutError(),
]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("error", CONNECTION_ERRORS)
def test_the_outcome_of_a_statement_on_a_broken_connection_is_unknown(error: BaseException, closed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert classify_failure(error, connection_is_closed=closed) == Failure(Outcome.UNKNOWN, DISCARD)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("kind", [asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError, OSError])
def test_a_connection_that_postgresql_said_it_ends_has_been_rolled_back(
    kind: type[Exception],
    closed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    error = after(LAST_REPORT, kind("no"))
    assert classify_failure(error, connection_is_closed=closed) == Failure(Outcome.UNAVAILABLE, DISCARD)


def test_the_report_of_a_pgbouncer_does_not_tell_the_outcome() -> None:
    error = after(PGBOUNCER_REPORT, asyncpg.ConnectionDoesNotExistError("no"))
    assert classify_failure(error, connection_is_closed=True) == Failure(Outcome.UNKNOWN, DISCARD)


def test_an_interface_error_means_a_broken_connection_only_if_that_is_closed() -> None:
    error = asyncpg.InterfaceError("connection is closed")
    assert classify_failure(error, connection_is_closed=True) == Failure(Outcome.UNKNOWN, DISCARD)
    assert classify_failure(error, connection_is_closed=False) == Failure(Outcome.UNEXPECTED, DISCARD)
    ended = after(LAST_REPORT, asyncpg.InterfaceError("connection is closed"))
    assert classify_failure(ended, connection_is_closed=True) == Failure(Outcome.UNAVAILABLE, DISCARD)


@pytest.mark.parametrize("sqlstate", ["23505", "40001", "40P01", "55P03", "57014", "57P01", "42P01", "XX000"])
def test_what_postgresql_reports_it_has_rolled_back(sqlstate: str) -> None:
    assert classify_failure(reported(sqlstate), connection_is_closed=False) == Failure(Outcome.ROLLED_BACK, KEEP)


def test_a_connection_that_leads_to_a_replica_is_discarded() -> None:
    assert classify_failure(reported("25006"), connection_is_closed=False) == Failure(Outcome.ROLLED_BACK, DISCARD)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("ids"), KeyboardInterrupt()])
def test_any_other_error_leaves_a_connection_in_an_unknown_state(error: BaseException) -> None:
    assert classify_failure(error, connection_is_closed=False) == Failure(Outcome.UNEXPECTED, DISCARD)
