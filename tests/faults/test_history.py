"""The check of histories finds what it is there for."""

from dataclasses import replace

import pytest

from tests.faults.history import READ, History, Operation, Order, balances, violations

ORDER = Order("CONFIRMED", 2, ["CREATED", "CONFIRMED"])
CREATE = Operation("Create", "o", 0, 1, "PENDING", 1)
CONFIRM = Operation("Confirm", "o", 2, 5, "CONFIRMED", 2)
OLD_READ = Operation(READ, "o", 3, 4, "PENDING", 1)
NEW_READ = Operation(READ, "o", 6, 7, "CONFIRMED", 2)
REFUSED = Operation("Ship", "o", 6, 7, "CONFIRMED", None)
CORRECT = [CREATE, CONFIRM, OLD_READ, NEW_READ, REFUSED]


def problems(*operations: Operation, order: Order | None = ORDER) -> list[str]:
    return list(violations(History(list(operations)), {} if order is None else {"o": order}))


def test_a_correct_history_has_no_violations() -> None:
    assert problems(*CORRECT) == []


@pytest.mark.parametrize(
    ("operations", "order", "problem"),
    [
        (CORRECT, None, "it is lost"),
        (CORRECT, replace(ORDER, version=1), "version 2 is lost"),
        (CORRECT, replace(ORDER, version=3), "version 3 was written by none of the answered calls"),
        (CORRECT, replace(ORDER, status="PENDING"), "its status is PENDING"),
        (CORRECT, replace(ORDER, events=["CONFIRMED", "CREATED"]), "its events are"),
        (CORRECT, replace(ORDER, events=["CREATED", "CONFIRMED", "CONFIRMED"]), "its events are"),
        ([*CORRECT, CONFIRM], ORDER, "two calls wrote version 2"),
        ([CREATE, replace(CONFIRM, kind="Ship", status="SHIPPED")], ORDER, "version 2 is Ship after Create"),
        ([CREATE, replace(CREATE, version=2)], ORDER, "version 2 is Create after Create"),
        ([*CORRECT, replace(NEW_READ, status="PENDING")], ORDER, "Get answered PENDING for version 2"),
        ([*CORRECT, replace(NEW_READ, version=1, status="PENDING")], ORDER, "Get saw version 1 after version 2"),
        ([CREATE, CONFIRM, replace(NEW_READ, begin=1.2, end=1.5)], ORDER, "Confirm saw version 2 after version 2"),
        ([*CORRECT, replace(REFUSED, kind="Process")], ORDER, "Process was refused in CONFIRMED"),
        ([*CORRECT, replace(REFUSED, status="PENDING")], ORDER, "Ship was refused in PENDING at version 2"),
        ([*CORRECT, replace(REFUSED, begin=1.2, end=1.5)], ORDER, "Ship was refused in CONFIRMED at version 1 to 1"),
    ],
)
def test_the_check_finds(operations: list[Operation], order: Order | None, problem: str) -> None:
    assert any(problem in found for found in problems(*operations, order=order))


def test_credit_is_held_for_a_pending_order_and_returned_for_a_cancelled_one() -> None:
    history = History()
    history.granted["u"], history.moved["u"] = 100, -10
    history.paid = {"p": ("u", 7), "c": ("u", 20), "d": ("u", 30)}
    orders = {"p": Order("PENDING", 1, []), "c": Order("CANCELLED", 2, []), "d": Order("DELIVERED", 5, [])}
    assert balances(history, orders) == {"u": (100 - 10 - 7 - 30, 7)}
