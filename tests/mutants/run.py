"""Change the code in small ways, one at a time, and report the changes that no check notices: `make mutants`.

Each mutant is tried in a process of its own. It is killed if a test fails or does not end, or if mypy refuses it. Every
survivor must be in survivors.toml, with a reason. The command fails if one is not, if one that is listed does not
survive, or if less than 90 % of the mutants of an area are killed.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import click

from tests.mutants.areas import AREAS, Area
from tests.mutants.mutants import Mutant, broken_module, intact_module, mutants_of
from tests.mutants.trial import Baseline, check_types, measure, preload, read_baseline, try_mutant
from tests.support.paths import ROOT

MINIMUM_KILLED = 0.9
SURVIVORS = Path(__file__).with_name("survivors.toml")
# A trial may take this many times as long as its tests take without a mutant, and some seconds more.
_PATIENCE = 5
_SECONDS = 20.0
_MYPY_SECONDS = 600.0
_PROGRESS = 50
_FEW_TESTS = 10
# The exit code of pytest if it has run no test.
_NO_TESTS = 5
# The output of each trial, by the number of the mutant.
_OUTPUT = ROOT / ".mutants"
_FORK = multiprocessing.get_context("fork")

Key = tuple[str, str, str, str]


@dataclass
class Result:
    """What became of the mutants of an area."""

    name: str
    mutants: int
    killed_by_tests: int
    killed_by_types: int
    survivors: list[Mutant]
    seconds: float

    @property
    def killed(self) -> float:
        """The part of the mutants that were killed."""
        return 1 - len(self.survivors) / self.mutants


def key_of(mutant: Mutant) -> Key:
    """Return what identifies a mutant, also after lines were inserted before it."""
    return mutant.file, mutant.place.function, mutant.line, mutant.becomes


def listed_survivors() -> dict[Key, str]:
    """Return the reasons for the survivors in survivors.toml."""
    entries = tomllib.loads(SURVIVORS.read_text())["survivors"]
    return {
        (entry["file"], entry["function"], entry["line"], becomes): entry["reason"]
        for entry in entries
        for becomes in entry["becomes"]
    }


@dataclass(frozen=True)
class Trial:
    """A function to run in a process of its own for the mutant with this number, for at most these seconds."""

    number: int
    seconds: float
    function: Callable[..., None]
    arguments: tuple[object, ...]


def _run(jobs: int, label: str, trials: Iterable[Trial]) -> list[int]:
    """Run trials, some at the same time, and return the numbers of the mutants whose trial ended with the code 0."""
    passed: list[int] = []
    for done, (number, code) in enumerate(_exit_codes(jobs, trials), start=1):
        if code is None:
            click.echo(f"{label}: number {number} did not end", err=True)
        if code == _NO_TESTS:
            sys.exit(f"no tests were found for mutant {number} of {label}")
        if code == 0:
            passed.append(number)
        if done % _PROGRESS == 0:
            click.echo(f"{label}: {done} tried, {len(passed)} alive", err=True)
    return sorted(passed)


def _exit_codes(jobs: int, trials: Iterable[Trial]) -> Iterator[tuple[int, int | None]]:
    """Run trials, and yield the number and the exit code of each; None if it did not end in its time."""
    waiting = iter(trials)
    running: dict[int, tuple[ForkProcess, float, int]] = {}
    try:
        while True:
            for trial in islice(waiting, jobs - len(running)):
                process = _FORK.Process(target=trial.function, args=trial.arguments)
                process.start()
                running[process.sentinel] = process, time.monotonic() + trial.seconds, trial.number
            if not running:
                return
            ended = wait(list(running), timeout=0.5)
            for sentinel, (process, end, number) in list(running.items()):
                if sentinel in ended or time.monotonic() > end:
                    _kill(process)
                    del running[sentinel]
                    yield number, process.exitcode if sentinel in ended else None
    finally:
        for process, _, _ in running.values():
            _kill(process)


def _kill(process: ForkProcess) -> None:
    """End a process, and those that it started."""
    # It may have ended already, or have no group of its own yet.
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()


@contextmanager
def running_cluster() -> Iterator[None]:
    """Keep a PostgreSQL running, which all trials use."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.cluster"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout
        click.echo(cluster.stdout.readline(), nl=False)
        try:
            yield
        finally:
            cluster.terminate()
            cluster.communicate()


def examine(area: Area, jobs: int) -> Result:
    """Try all mutants of an area."""
    began = time.monotonic()
    output = _OUTPUT / area.name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    baseline = _baseline(area, output)
    preload(baseline, area.files)
    mutants = dict(enumerate(m for file in area.files for m in mutants_of(file)))
    _check_trials(area, jobs, baseline, output)
    passed = _run(jobs, area.name, _trials(mutants, baseline, output))
    _check_trials(area, jobs, baseline, output)
    # The cache holds the types of all modules, so that only the mutants are checked.
    cache = _OUTPUT / "types"
    subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", cache, *area.files], cwd=ROOT, check=True)
    checks = (
        Trial(number, _MYPY_SECONDS, check_types, (mutants[number], output / f"{number}.types", cache))
        for number in passed
    )
    survived = _run(jobs, f"{area.name}: types", checks)
    return Result(
        area.name,
        len(mutants),
        len(mutants) - len(passed),
        len(passed) - len(survived),
        [mutants[number] for number in survived],
        time.monotonic() - began,
    )


def _check_trials(area: Area, jobs: int, baseline: Baseline, output: Path) -> None:
    """Check that trials tell what changes nothing from what breaks everything."""
    files = dict(enumerate(area.files))
    broken = {number: broken_module(file) for number, file in files.items()}
    for number in _run(jobs, f"{area.name}: broken modules", _trials(broken, baseline, output)):
        sys.exit(f"no test of {area.name} imports {files[number]}")
    intact = {number: intact_module(file) for number, file in files.items()}
    passed = _run(jobs, f"{area.name}: intact modules", _trials(intact, baseline, output, most=_FEW_TESTS))
    for number in intact.keys() - set(passed):
        sys.exit(f"tests of {files[number]} fail without a change: see {output / f'{number}.log'}")


def _baseline(area: Area, output: Path) -> Baseline:
    stored = output / "baseline"
    process = _FORK.Process(target=measure, args=(area.files, area.tests, stored))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"the tests of {area.name} fail without a mutant:\n{stored.with_suffix('.log').read_text()}")
    return read_baseline(stored)


def _trials(
    mutants: Mapping[int, Mutant], baseline: Baseline, output: Path, *, most: int | None = None
) -> Iterator[Trial]:
    for number, mutant in mutants.items():
        tests = baseline.selected(mutant)[:most]
        seconds = _SECONDS + _PATIENCE * sum(baseline.seconds[test] for test in tests)
        yield Trial(number, seconds, try_mutant, (mutant, tests, output / f"{number}.log"))


def _selected(names: Sequence[str]) -> list[Area]:
    """Return the areas with these names, and the areas of these files with only these files."""
    if not names:
        return list(AREAS)
    selected = [area for area in AREAS if area.name in names]
    for area in AREAS:
        files = tuple(file for file in area.files if file in names)
        if files and area not in selected:
            selected.append(replace(area, files=files))
    return selected


def report(result: Result, files: Collection[str], listed: Mapping[Key, str]) -> bool:
    """Print what is wrong with the result for these files, and return whether nothing is."""
    alive = {key_of(mutant) for mutant in result.survivors}
    for mutant in result.survivors:
        if key_of(mutant) not in listed:
            click.echo(f"\nNo check notices this change, and it is not in {SURVIVORS.name}:\n{mutant}")
    stale = [key for key in listed if key[0] in files and key not in alive]
    for file, function, line, becomes in stale:
        click.echo(f"\nListed in {SURVIVORS.name}, but does not survive:")
        click.echo(f"{file}: {function}\n    - {line}\n    + {becomes}")
    return alive <= listed.keys() and not stale and result.killed >= MINIMUM_KILLED


def summary(results: Sequence[Result]) -> str:
    """Return a table of the results."""
    lines = [f"{'area':12} {'mutants':>8} {'by tests':>9} {'by mypy':>8} {'survive':>8} {'killed':>8} {'seconds':>8}"]
    lines += [
        f"{each.name:12} {each.mutants:8} {each.killed_by_tests:9} {each.killed_by_types:8}"
        f" {len(each.survivors):8} {each.killed:8.1%} {each.seconds:8.0f}"
        for each in results
    ]
    return "\n".join(lines)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Trials at the same time.")
def main(names: Sequence[str], jobs: int) -> None:
    """Try the mutants of all areas, or of the areas or files NAMES."""
    selected = _selected(names)
    if not selected:
        sys.exit(f"no such area or file; the areas are {', '.join(area.name for area in AREAS)}")
    listed = listed_survivors()
    results: list[Result] = []
    good = True
    with running_cluster():
        for area in selected:
            results.append(examine(area, jobs))
            good &= report(results[-1], area.files, listed)
    click.echo(f"\n{summary(results)}")
    if not good:
        sys.exit(1)


if __name__ == "__main__":
    main()
