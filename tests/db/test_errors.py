"""What a violated constraint means."""

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.application.ports.errors import Contention, DatabaseUnavailable, DeadlineExceeded, Overloaded
from service.db.errors import constraint_of, sqlstate_of, translate_error, translated_errors
from service.domain.errors import OrderAlreadyExists, UserAlreadyExists


def violated(sqlstate: str, constraint: str) -> asyncpg.PostgresError:
    """Return the error that asyncpg makes of a report of the server."""
    error = asyncpg.PostgresError.new({"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": "no", "n": constraint})
    assert isinstance(error, asyncpg.PostgresError)
    return error


@pytest.mark.parametrize(
    ("sqlstate", "constraint", "meaning"),
    [
        ("23505", "uq_users_email", UserAlreadyExists),
        ("23505", "uq_users_username", UserAlreadyExists),
        ("23505", "uq_orders_user_id_external_ref", OrderAlreadyExists),
        ("23505", "uq_orders_order_number", Contention),
        ("23505", "pk_credit_accounts", Contention),
        ("23503", "fk_credit_entries_user_id_users", Contention),
        ("23503", "fk_order_notes_author_id_users", Contention),
    ],
)
def test_every_conflict_with_another_transaction_has_a_meaning(
    sqlstate: str, constraint: str, meaning: type[Exception]
) -> None:
    assert isinstance(translate_error(violated(sqlstate, constraint)), meaning)


def test_a_value_that_a_check_refuses_is_a_bug() -> None:
    assert translate_error(violated("23514", "ck_orders_credit")) is None


@pytest.mark.parametrize(
    ("sqlstate", "meaning"),
    [
        ("40001", Contention),
        ("40P01", Contention),
        ("55P03", Contention),
        ("0A000", Contention),
        ("57014", DeadlineExceeded),
        # Of each class that means an outage, some codes.
        *((code, DatabaseUnavailable) for code in ("08000", "08006", "57P01", "57P03", "53300", "53400")),
        *((code, DatabaseUnavailable) for code in ("25006", "55000", "28000", "28P01", "3D000")),
        # A mistake of the service.
        *((code, None) for code in ("42601", "42703", "22001", "23514", "23502", "25001", "3F000", "57000", "40002")),
    ],
)
@pytest.mark.parametrize("through", ["asyncpg", "SQLAlchemy"])
def test_every_sqlstate_has_one_meaning(sqlstate: str, meaning: type[Exception] | None, through: str) -> None:
    error: Exception = violated(sqlstate, "")
    if through == "SQLAlchemy":
        error = DBAPIError("SELECT", {}, error)
    translated = translate_error(error)
    assert type(translated) is (meaning or type(None))
    assert sqlstate_of(error) == sqlstate


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        ("uq_users_email", "email"),
        ("uq_users_email_folded", "email"),
        ("uq_users_username", "username"),
        ("uq_orders_user_id_external_ref", "external_ref"),
    ],
)
def test_a_value_that_is_taken_is_named_by_its_field(constraint: str, field: str) -> None:
    error = translate_error(violated("23505", constraint))
    assert isinstance(error, UserAlreadyExists | OrderAlreadyExists)
    assert error.field == field


@pytest.mark.parametrize("error", [ConnectionResetError(), ConnectionRefusedError(), TimeoutError(), OSError()])
def test_an_error_of_the_network_is_an_outage(error: Exception) -> None:
    assert isinstance(translate_error(error), DatabaseUnavailable)


def test_a_full_pool_is_an_overload() -> None:
    assert isinstance(translate_error(PoolTimeoutError()), Overloaded)


def test_an_invalidated_connection_is_an_outage_with_any_report() -> None:
    error = DBAPIError("SELECT", {}, violated("42601", ""), connection_invalidated=True)
    assert isinstance(translate_error(error), DatabaseUnavailable)


@pytest.mark.parametrize("error", [ValueError("40001"), KeyError("x"), RuntimeError()])
def test_any_other_error_is_not_the_databases(error: Exception) -> None:
    error.sqlstate = "40001"  # type: ignore[attr-defined] # only an error of the database is asked for it
    assert translate_error(error) is None


def test_errors_of_the_dialect_tell_what_asyncpg_reported() -> None:
    reported = violated("23505", "uq_users_username")
    own = AsyncAdapt_asyncpg_dbapi.IntegrityError("no", reported)  # type: ignore[no-untyped-call] # as SQLAlchemy makes it
    own.__cause__ = reported
    for error in (own, DBAPIError("INSERT", {}, own)):
        assert (sqlstate_of(error), constraint_of(error)) == ("23505", "uq_users_username")
        assert isinstance(translate_error(error), UserAlreadyExists)


def test_a_stale_cached_statement_is_told_by_its_cause() -> None:
    own = AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError("no")  # type: ignore[no-untyped-call] # as SQLAlchemy makes it
    own.__cause__ = violated("0A000", "")
    error = DBAPIError("SELECT", {}, own)
    assert sqlstate_of(error) == "0A000"
    assert isinstance(translate_error(error), Contention)


def test_an_error_without_a_report_has_neither_code_nor_constraint() -> None:
    own = AsyncAdapt_asyncpg_dbapi.Error("no")  # type: ignore[no-untyped-call] # as SQLAlchemy makes it
    for error in (ValueError(), own, DBAPIError("SELECT", {}, ValueError())):
        assert (sqlstate_of(error), constraint_of(error), translate_error(error)) == (None, None, None)


def test_errors_are_translated_in_a_block_and_keep_their_cause() -> None:
    error = violated("40001", "")
    with pytest.raises(Contention) as raised, translated_errors():
        raise error
    assert raised.value.__cause__ is error
    with pytest.raises(ZeroDivisionError), translated_errors():
        raise ZeroDivisionError
    with translated_errors():
        pass
