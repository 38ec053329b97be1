from pathlib import Path

import pytest

from tests.mutants import mutants as making
from tests.mutants.areas import AREAS
from tests.mutants.mutants import Mutant, mutants_of
from tests.mutants.run import SURVIVORS, Result, key_of, listed_survivors, report

SOURCE = '''
from typing import TypedDict, TypeVar

T = TypeVar("T")
LIMIT = 7
TABLE = {"a": LIMIT}


class Fields(TypedDict, total=False):
    """Static types."""


class Box:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    @property
    def fits(self) -> bool:
        if self.size > LIMIT:
            raise ValueError("two words", TABLE["a"])
        return True
'''


@pytest.fixture
def mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mutant]:
    (tmp_path / "box.py").write_text(SOURCE)
    monkeypatch.setattr(making, "ROOT", tmp_path)
    return list(mutants_of("box.py"))


def test_constants_tables_conditions_and_properties_are_changed(mutants: list[Mutant]) -> None:
    changes = {(mutant.line, mutant.becomes) for mutant in mutants}
    assert {
        ("LIMIT = 7", "LIMIT = 8"),
        ('TABLE = {"a": LIMIT}', 'TABLE = {"XXaXX": LIMIT}'),
        ("if self.size > LIMIT:", "if self.size >= LIMIT:"),
        ("return True", "return False"),
    } <= changes
    assert len(changes) == len(mutants)


def test_static_types_and_the_words_of_messages_are_not_changed(mutants: list[Mutant]) -> None:
    assert not [mutant for mutant in mutants if "TypeVar" in mutant.line or "total" in mutant.line]
    assert not [mutant for mutant in mutants if "XXtwo" in mutant.becomes]
    assert [mutant for mutant in mutants if 'ValueError(None, TABLE["a"])' in mutant.becomes]


def test_a_mutant_knows_where_it_is_and_when_it_runs(mutants: list[Mutant]) -> None:
    places = {mutant.line: mutant.place for mutant in mutants}
    assert (places["LIMIT = 7"].function, places["LIMIT = 7"].runs_at_import) == ("", True)
    header = places["def __init__(self, size: int = 1) -> None:"]
    assert (header.function, header.runs_at_import) == ("Box.__init__", True)
    condition = places["if self.size > LIMIT:"]
    assert (condition.function, condition.runs_at_import) == ("Box.fits", False)
    lines = SOURCE.splitlines()
    assert [lines[number - 1].strip() for number in condition.statement] == ["if self.size > LIMIT:"]


def test_only_listed_survivors_pass(mutants: list[Mutant], capsys: pytest.CaptureFixture[str]) -> None:
    survivor = mutants[0]
    listed = {key_of(survivor): "a reason"}
    one, none = Result("boxes", 10, 9, 0, [survivor], 1), Result("boxes", 10, 10, 0, [], 1)
    assert report(one, ["box.py"], listed)
    assert not report(one, ["box.py"], {})
    assert "not in survivors.toml" in capsys.readouterr().out
    assert not report(none, ["box.py"], listed)
    assert "does not survive" in capsys.readouterr().out
    # The entry is about a file that was not examined.
    assert report(none, ["other.py"], listed)
    # 80 % are too few.
    assert not report(Result("boxes", 5, 4, 0, [survivor], 1), ["box.py"], listed)


def test_every_listed_survivor_is_a_mutant_of_a_file_that_is_examined_and_has_a_reason() -> None:
    listed = listed_survivors()
    examined = {file for area in AREAS for file in area.files}
    assert {file for file, _, _, _ in listed} <= examined
    known = {key_of(mutant) for file in sorted({key[0] for key in listed}) for mutant in mutants_of(file)}
    assert [key for key in listed if key not in known] == [], f"{SURVIVORS.name} lists what is no mutant any more"
    assert all(listed.values())
