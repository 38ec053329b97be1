"""What a check of `commerce doctor` has found."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """The result of a check. Only FAIL means that the service cannot run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check.
        words: what was found and, unless it is fine, what to do: one line without secrets.
    """

    grade: Grade
    name: str
    words: str


Findings = AsyncIterator[Finding]


def judged(name: str, problem: str | None, fine: str, otherwise: Grade = Grade.FAIL) -> Finding:
    """Return a finding of the grade `otherwise` with the problem, if there is one."""
    return Finding(otherwise, name, problem) if problem else Finding(Grade.OK, name, fine)
