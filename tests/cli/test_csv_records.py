import csv
from io import StringIO

import pytest
from commerce.client.cli.csv_records import CsvReader, UnreadableLine
from hypothesis import example, given
from hypothesis import strategies as st

CELLS = st.text(st.sampled_from('ab ",;\t\r\n0é'), max_size=6)
TABLES = st.lists(st.lists(CELLS, min_size=2, max_size=4), min_size=1, max_size=5)


def records(text: str) -> list[tuple[int, list[str] | UnreadableLine]]:
    return list(CsvReader(StringIO(text, newline=""), lambda cells: len(cells) == 2))


def cells(text: str) -> list[list[str]]:
    """Return the records, of which none may be unreadable."""
    read = [record for _, record in records(text)]
    assert not any(isinstance(record, UnreadableLine) for record in read), read
    return [record for record in read if isinstance(record, list)]


@given(TABLES)
@example([["a", '"'], ["\n", "b"]])
def test_what_the_csv_module_writes_is_read_back(table: list[list[str]]) -> None:
    file = StringIO(newline="")
    header = ["a,b", "c"]
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["x", ",,,,,,"], *table])
    reader = CsvReader(StringIO(file.getvalue(), newline=""), lambda _: True)
    read = [record for _, record in reader]
    assert read[1:] == [row for row in table if any(cell.strip() for cell in row)], header


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("a,b\n1,2\n", [["a", "b"], ["1", "2"]]),
        ("a;b\r\n1;2", [["a", "b"], ["1", "2"]]),
        ('a\tb\n"1"\t\n\t"2"', [["a", "b"], ["1", ""], ["", "2"]]),
        ("sep=;\na,b;c\n", [["a,b", "c"]]),
        ("a,b\r1,2\r", [["a", "b"], ["1", "2"]]),
        ('a,b\n "1" , "x,""y""\r\nz"\n', [["a", "b"], ["1", 'x,"y"\r\nz']]),
        ('a,b\n5" pipe,say "hi"\n', [["a", "b"], ['5" pipe', 'say "hi"']]),
        ("a,b\n,\n\n , \n1,\n", [["a", "b"], ["1", ""]]),
        ("", []),
    ],
)
def test_records_are_split(text: str, table: list[list[str]]) -> None:
    assert cells(text) == table


@pytest.mark.parametrize(
    "stray",
    ['"1,2', '1,"2', '"1"x,2', '1,"2" x', '1,"""', '"1""2,3"4'],
)
@pytest.mark.parametrize("after", ["3,4\n5,6", '3,4\n"5","6"', '"3","4"\n5,"6"', '"3",4\n"5",""'])
def test_a_stray_quote_costs_its_own_line(stray: str, after: str) -> None:
    first, unreadable, *others = records(f"a,b\n{stray}\n{after}\n")
    assert first == (1, ["a", "b"])
    assert unreadable[0] == 2
    assert isinstance(unreadable[1], UnreadableLine)
    assert unreadable[1].cells == stray.split(",")
    assert [number for number, _ in others] == [3, 4]
    assert others[0][1] == ["3", "4"]


def test_a_stray_quote_that_another_one_closes_is_noticed_by_the_number_of_cells() -> None:
    numbers = {number: type(record) for number, record in records('a,b\n1,"2\n3,4\n5",6\n7,8\n')}
    assert numbers == {1: list, 2: UnreadableLine, 3: list, 4: list, 5: list}


def test_a_long_cell_is_read_and_a_quote_that_nothing_closes_is_not_followed_far() -> None:
    long = "x" * 3_000_000
    assert cells(f'a,b\n"{long}",1\n') == [["a", "b"], [long, "1"]]
    lines = "3,4\n" * 400_000
    read = records(f'a,b\n1,"2\n{lines}')
    assert isinstance(read[1][1], UnreadableLine)
    assert len(read) == 400_002
