"""What a violated constraint means."""

import asyncpg
import pytest

from service.application.ports.errors import Contention
from service.db.errors import translate_error
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
