import json

import pytest

from service.domain.errors import (
    DomainError,
    EtagMismatch,
    FieldViolation,
    IllegalTransition,
    InvalidField,
    NoteNotFound,
    OrderAlreadyExists,
    OrderNotFound,
    UserAlreadyExists,
    UserNotActive,
    UserNotFound,
)


def test_an_error_says_its_message_and_has_no_metadata_unless_given() -> None:
    error = EtagMismatch("the order has changed")
    assert (str(error), error.message, error.metadata) == ("the order has changed", "the order has changed", {})


def test_an_error_copies_its_metadata() -> None:
    given = {"state": "INACTIVE"}
    error = UserNotActive("users/1", "the user is INACTIVE", given)
    given["state"] = "DELETED"
    assert (error.subject, str(error), error.metadata) == ("users/1", "the user is INACTIVE", {"state": "INACTIVE"})


def test_a_message_names_the_first_three_wrong_fields() -> None:
    error = InvalidField([FieldViolation(f"f{number}", f"is {number}") for number in range(5)])
    assert str(error) == "f0: is 0; f1: is 1; f2: is 2"
    assert len(error.violations) == 5


def test_a_message_can_be_given_instead() -> None:
    assert str(InvalidField([FieldViolation("f", "is wrong")], "all is wrong")) == "all is wrong"


def test_one_wrong_field_breaks_the_rule_of_its_reason() -> None:
    assert InvalidField.at("f", "is wrong").violations == (FieldViolation("f", "is wrong", "INVALID_FIELD"),)
    assert FieldViolation("f", "is wrong").rule == ""


@pytest.mark.parametrize(
    ("error", "message", "name"),
    [
        (UserNotFound("1"), "user 1 not found", "1"),
        (OrderNotFound("ORD-1"), "order ORD-1 not found", "ORD-1"),
        (NoteNotFound("1"), "order note 1 not found", "1"),
        (NoteNotFound(), "order note not found", ""),
    ],
)
def test_a_missing_resource_is_named_in_words(error: UserNotFound, message: str, name: str) -> None:
    assert (error.message, error.name, error.metadata) == (message, name, {})


def test_a_missing_resource_may_have_metadata() -> None:
    assert OrderNotFound("1", {"missing_count": "2"}).metadata == {"missing_count": "2"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserAlreadyExists("username"), "another user has this username"),
        (OrderAlreadyExists("external_ref"), "another order has this external_ref"),
    ],
)
def test_a_duplicate_names_its_field(error: UserAlreadyExists, message: str) -> None:
    assert error.message == message
    assert error.metadata == {"field": error.field}
    assert message.endswith(error.field)


def shared(references: list[str], count: int) -> tuple[OrderAlreadyExists, list[str]]:
    error = OrderAlreadyExists.of_both_users(references, count)
    return error, json.loads(error.metadata["external_refs"])


def test_users_who_share_references_are_told_which() -> None:
    error, named = shared(["r-1", 'r-"2"'], 2)
    assert named == ["r-1", 'r-"2"']
    assert error.metadata["count"] == "2"
    assert (error.field, error.metadata["field"]) == ("external_ref", "external_ref")
    assert "2 in all" in error.message


@pytest.mark.parametrize("letter", ["x", "é", "名"])
def test_of_many_long_references_as_many_are_named_as_fit_into_a_status(letter: str) -> None:
    references = [letter * 90 + str(number) for number in range(10, 30)]
    error, named = shared(references, 1000)
    assert named == references[: len(named)]
    # The limit is in bytes of UTF-8; one more reference would exceed it.
    assert len(error.metadata["external_refs"].encode()) <= 800
    assert len(json.dumps(references[: len(named) + 1], ensure_ascii=False).encode()) > 800
    assert error.metadata["count"] == "1000"


def test_exactly_eight_hundred_bytes_of_references_fit() -> None:
    # With brackets and quotes.
    assert shared(["x" * 796], 1)[1] == ["x" * 796]
    assert shared(["x" * 797], 1)[1] == []


def test_an_illegal_transition_tells_the_state_and_the_next_ones() -> None:
    error = IllegalTransition("orders/1", "ship an order", "PENDING", ["CONFIRMED", "CANCELLED"])
    assert error.subject == "orders/1"
    assert error.message == ("cannot ship an order in state PENDING; allowed next states: CONFIRMED, CANCELLED")
    assert error.metadata == {"state": "PENDING", "allowed": "CONFIRMED, CANCELLED"}
    end = IllegalTransition("orders/1", "ship an order", "DELIVERED", [])
    assert end.message.endswith("allowed next states: none")
    assert end.metadata["allowed"] == ""


def test_every_error_is_a_domain_error() -> None:
    for error in (InvalidField.at("f", "x"), UserNotFound(), UserAlreadyExists("email"), EtagMismatch("x")):
        assert isinstance(error, DomainError)
