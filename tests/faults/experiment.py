"""An experiment: a fault, the criterion that the service must meet, and a control without the defence."""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults import experiments
from tests.support.databases import cloned

Figure = int | float | str


class NotPossible(Exception):
    """The machine does not allow this experiment. The message says what it would need."""


@dataclass(frozen=True)
class Plan:
    """What an experiment works with.

    Attributes:
        postgres_url: of a PostgreSQL that experiments share, so none may make it fail.
        template_url: of a migrated database there.
        folder: an empty folder, which is removed afterwards.
        seed: the seed of everything random.
        smoke: whether to run for a few seconds only.
    """

    postgres_url: str
    template_url: str
    folder: Path
    seed: int
    smoke: bool

    def random(self) -> Random:
        """Return a new generator, which always returns the same numbers for the same seed."""
        return Random(self.seed)

    def size(self, full: int, smoke: int) -> int:
        """Return how often to do something in this run."""
        return smoke if self.smoke else full

    def database(self) -> AbstractAsyncContextManager[str]:
        """Create a migrated database that only this experiment uses, until the block ends; yields its URL."""
        return cloned(self.postgres_url, self.template_url)


@dataclass
class Result:
    """What an experiment has measured.

    Attributes:
        figures: the measured figures by name. The name includes the unit, for example `longest stall, ms`.
        broken: the criteria that were not met.
        late: the criteria about time that were not met. A smoke run ignores them, because the machine may be busy.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    def require(self, holds: bool, criterion: str) -> None:  # noqa: FBT001 - reads like an assertion
        """Note a criterion that must be met on any machine, however slow."""
        if not holds:
            self.broken.append(criterion)

    def require_in_time(self, holds: bool, criterion: str) -> None:  # noqa: FBT001 - reads like an assertion
        """Note a criterion about time, which a smoke run ignores."""
        if not holds:
            self.late.append(criterion)


@dataclass(frozen=True)
class Experiment:
    """An experiment; each module in `tests/faults/experiments/` has one, named `EXPERIMENT`.

    Attributes:
        name: on the command line and in the report.
        fault: what is done to the service, in words.
        passes: the criterion, in words.
        run: injects the fault, and returns what it measured.
        control: the same without the defence; the experiment is void unless the result of this fails the criterion.
        defence: what the control lacks, in words.
    """

    name: str
    fault: str
    passes: str
    run: Callable[[Plan], Awaitable[Result]]
    control: Callable[[Plan], Awaitable[Result]]
    defence: str


def all_experiments() -> Sequence[Experiment]:
    """Return the experiments of all modules in `tests/faults/experiments/`, by name."""
    names = [module.name for module in pkgutil.iter_modules(experiments.__path__)]
    found: list[Experiment] = [
        importlib.import_module(f"{experiments.__name__}.{name}").EXPERIMENT for name in names if name[0] != "_"
    ]
    return sorted(found, key=lambda experiment: experiment.name)
