import pytest
from commerce.client.cli.tables import Listing

ID = "01981d2c-58f5-7f5e-9d5f-0a4f1f4c7a31"
COLUMNS = ("note.id", "body", "state")
BODY = "The customer asked twice, and got no answer"


def test_without_a_terminal_each_row_is_one_line() -> None:
    listing = Listing(COLUMNS, [(ID, BODY * 100, "DRAFT")], None)
    assert list(listing.lines()) == [
        f"{'ID':36}  {'BODY':4300}  STATE",
        f"{ID}  {BODY * 100}  DRAFT",
    ]
    assert not listing.wraps


@pytest.mark.parametrize(
    ("width", "headers", "wraps"),
    [
        (36 + 2 + 43 + 2 + 5, "ID BODY STATE", False),
        (36 + 2 + 24 + 2 + 5, "ID BODY STATE", True),
        (36 + 2 + 24 + 2 + 4, "ID BODY", True),
        (36 + 2 + 23, "ID STATE", False),
        (36, "ID", False),
        (10, "ID", True),
    ],
)
def test_columns_that_do_not_fit_are_left_out_and_words_are_wrapped(width: int, headers: str, *, wraps: bool) -> None:
    listing = Listing(COLUMNS, [(ID, BODY, "DRAFT")], width)
    assert next(listing.lines()).split() == headers.split()
    assert sorted([*headers.split(), *listing.left_out]) == ["BODY", "ID", "STATE"]
    assert listing.wraps is wraps


def test_wide_characters_take_two_cells() -> None:
    lines = Listing(("name", "id"), [("林", "1"), ("Lin", "2")], 20).lines()
    assert list(lines) == ["NAME  ID", "林    1", "Lin   2"]


def test_without_rows_there_are_headers() -> None:
    assert list(Listing(("name", "id"), [], 80).lines()) == ["NAME  ID"]
