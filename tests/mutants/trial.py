"""Run tests against a mutant, in a process of its own that imports the mutant in place of the source file."""

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

import coverage
import grimp
import pytest
from hypothesis import Phase, settings
from mypy import api

from tests.mutants.mutants import Mutant
from tests.support.paths import ROOT

# What coverage calls the time before the first test, when modules are imported.
_NO_TEST = ""
# A mutant may collect without end.
_MAX_BYTES = 3 << 30
_OPTIONS = (
    *("-q", "-x", "--no-header"),
    *("-p", "no:xdist", "-p", "no:pytest_cov", "-p", "no:cacheprovider"),
    # Preloaded packages make mutants quicker to try, and no assertions of theirs are of interest.
    *("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"),
)
# The modules of the service that trials need not import again.
_KEPT: set[str] = set()


@dataclass
class Baseline:
    """What the tests do without a mutant.

    Attributes:
        seconds: the duration of each test, by its node id without parameters.
        tests: the tests that run a line, by source file and line; `_NO_TEST` if it runs while tests are collected.
        modules: the modules that the tests import, except those with tests.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def selected(self, mutant: Mutant) -> list[str]:
        """Return the tests that can notice a mutant, the quickest first."""
        of_file = self.tests[mutant.file]
        tests = {test for line in mutant.place.statement for test in of_file.get(line, ())}
        if mutant.place.runs_at_import or _NO_TEST in tests:
            # The lines that run while tests are collected can matter to all tests that use the file.
            tests = {test for tests in of_file.values() for test in tests}
            tests |= {test for test in self.seconds if Path(mutant.file).stem.rstrip("s") in test}
            tests = tests - {_NO_TEST} or set(self.seconds)
        return sorted(tests, key=lambda test: self.seconds[test])


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the signature of the base class
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._name = _module(mutant.file)
        self._path = str(ROOT / mutant.file)
        self._source = mutant.source

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return spec_from_file_location(fullname, self._path, loader=_Loader(fullname, self._path, self._source))


class _Replace:
    """A pytest plugin that lets the tests import a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self._finder = _Finder(mutant)
        # For conftest.py, which is imported before the session starts.
        sys.meta_path.insert(0, self._finder)

    def pytest_sessionstart(self) -> None:
        # Before pytest's own finder, which imports the files that are named as tests, here for their examples.
        sys.meta_path.insert(0, self._finder)


class _Measure:
    """A pytest plugin that measures which lines each test runs, and how long it takes."""

    def __init__(self, measured: coverage.Coverage, baseline: Baseline) -> None:
        self._coverage = measured
        self._seconds = baseline.seconds

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._coverage.switch_context(_function(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = _function(report.nodeid)
        self._seconds[test] = self._seconds.get(test, 0) + report.duration


def _discard_modules(kept: Collection[str] = ()) -> None:
    """Let the modules of this project be imported again; the package sets variables that gRPC reads only once."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {"service", "tests"} and name != "service" and name not in kept:
            del sys.modules[name]


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def _function(nodeid: str) -> str:
    """Return the node id without parameters, which may depend on the mutant."""
    return nodeid.partition("[")[0]


def measure(files: Iterable[str], tests: Iterable[str], to: Path) -> None:
    """Run tests without a mutant and store their `Baseline` in a file; ends the process."""
    _KEPT.clear()
    _prepare(to.with_suffix(".log"))
    baseline = Baseline()
    paths = {str(ROOT / file): file for file in files}
    measured = coverage.Coverage(data_file=None, include=list(paths), config_file=False)
    measured.start()
    code = pytest.main([*_OPTIONS, "--tb=short", *tests], plugins=[_Measure(measured, baseline)])
    measured.stop()
    data = measured.get_data()
    for path, file in paths.items():
        contexts = data.contexts_by_lineno(path)
        baseline.tests[file] = contexts
    baseline.modules = [name for name in sys.modules if name.partition(".")[0] != "tests"]
    to.write_text(json.dumps(vars(baseline)))
    os._exit(code)


def preload(baseline: Baseline, files: Iterable[str]) -> None:
    """Import the modules that every trial needs and no mutant of these files changes; trials are forks of this process.

    Modules that import a mutant, directly or not, are imported by each trial.
    """
    _discard_modules()
    graph = grimp.build_graph("service")
    mutated = {_module(file) for file in files}
    importing = set().union(*(graph.find_downstream_modules(module) for module in mutated))
    for name in set(baseline.modules) - mutated - importing:
        # Some cannot be imported by themselves; the tests import them, if they need them.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    _KEPT.clear()
    _KEPT.update(name for name in sys.modules if name.partition(".")[0] == "service")
    # pytest collects garbage several times, which need not look at these modules.
    gc.collect()
    gc.freeze()


def try_mutant(mutant: Mutant, tests: Sequence[str], log: Path) -> None:
    """Run tests on a mutant, and end the process with the exit code of pytest: 0 if no test has noticed."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))
    _prepare(log)
    # Without the name of a test, pytest would run all of them.
    os._exit(pytest.main([*_OPTIONS, "--tb=no", *tests], plugins=[_Replace(mutant)]) if tests else 0)


def check_types(mutant: Mutant, log: Path, cache: Path) -> None:
    """Check the types of a mutant, and end the process with the exit code 0 unless mypy refuses it."""
    os.setsid()
    changed = log.with_suffix(".py")
    changed.write_text(mutant.source)
    shadow = ("--shadow-file", mutant.file, str(changed))
    output, _, _ = api.run([*shadow, "--cache-dir", str(cache), mutant.file])
    log.write_text(output)
    errors = [line for line in output.splitlines() if ": error: " in line]
    # Mutants have conditions that are always true, which mistakes seldom have.
    os._exit(any(not line.endswith("[redundant-expr]") for line in errors))


def _prepare(log: Path) -> None:
    """Discard the modules that a mutant can change, make property tests repeatable, and write output to a file."""
    _discard_modules(_KEPT)
    # Without shrinking: which example fails does not matter.
    settings.register_profile("mutants", derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)


def read_baseline(path: Path) -> Baseline:
    """Read a stored baseline."""
    values: Mapping[str, dict[str, dict[str, list[str]]]] = json.loads(path.read_text())
    baseline = Baseline(**values)  # type: ignore[arg-type]
    baseline.tests = {
        file: {int(line): tests for line, tests in lines.items()} for file, lines in values["tests"].items()
    }
    return baseline
