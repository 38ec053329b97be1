"""Every block of code in the documents is run by a test, or else checked here as far as it can be.

A block that nothing runs, and that is of no kind below, fails. Then let a test run it, and add a line to `RUN`; or, if
it cannot be run, see that it is checked.
"""

import ast
import configparser
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache

import asyncpg
import pytest
import yaml
from google.protobuf.descriptor_pool import Default

from tests.support.documented_commands import problems_of
from tests.support.documents import Block, blocks_of, documents
from tests.support.methods import ALL_METHODS
from tests.support.paths import ROOT


@dataclass(frozen=True)
class Run:
    """Blocks that a test runs, or compares with what it runs.

    Attributes:
        document: its path, or a pattern for several.
        languages: those of the blocks.
        test: the module of the test, which names the document; or a folder, one of whose modules names it.
        only_shown: whether it runs only those blocks whose output is shown.
    """

    document: str
    languages: frozenset[str]
    test: str
    only_shown: bool = False

    def runs(self, block: Block) -> bool:
        """Return whether the test runs a block."""
        is_wanted = block.shown is not None or not self.only_shown
        is_covered = fnmatch(block.document, self.document) and block.language in self.languages
        return is_covered and is_wanted and (self.test.endswith(".py") or block.document in _texts(self.test))


@cache
def _texts(folder: str) -> str:
    """Return the texts of the tests in a folder."""
    return "\n".join(path.read_text() for path in (ROOT / folder).glob("*.py"))


def _run(document: str, languages: str, test: str, *, only_shown: bool = False) -> Run:
    path = f"tests/{test}"
    return Run(document, frozenset(languages.split()), path if test.endswith("/") else f"{path}.py", only_shown)


RUN = (
    _run("README.md", "sh python", "delivery/test_quick_start"),
    _run("docs/quick-start.md", "sh python", "delivery/test_quick_start"),
    _run("docs/metrics.md", "sh", "delivery/test_quick_start"),
    _run("docs/tour.md", "sh", "delivery/test_tour"),
    _run("docs/calling.md", "python", "delivery/test_tour", only_shown=True),
    _run("docs/calling.md", "ts", "clients/test_typescript"),
    _run("docs/python-client.md", "python", "delivery/test_tour", only_shown=True),
    _run("docs/events.md", "python", "delivery/test_tour", only_shown=True),
    _run("docs/import-export.md", "python", "delivery/test_tour", only_shown=True),
    _run("client/README.md", "python", "delivery/test_tour"),
    _run("clients/typescript/README.md", "ts", "clients/test_typescript"),
    _run("docs/commercectl.md", "sh", "commercectl/test_docs", only_shown=True),
    _run("docs/http.md", "sh", "http/test_page", only_shown=True),
    _run("docs/rest.md", "sh", "envoy/test_page", only_shown=True),
    _run("docs/kubernetes.md", "sh yaml", "delivery/test_kubernetes_docs"),
    _run("docs/debugging.md", "sh", "delivery/test_debugging_docs", only_shown=True),
    _run("docs/errors/*.md", "json", "errors/test_catalogue"),
    _run("docs/security.md", "toml", "delivery/test_security_page"),
    _run("docs/operations/*.md", "sh", "recoveries/"),
)
# Pictures made of characters, trees of folders, and lines of a file in a format of its own.
NO_COMMANDS = {
    ("docs/alerts.md", "text"),
    ("docs/architecture.md", "text"),
    ("docs/kubernetes.md", "text"),
    ("docs/runbooks.md", "text"),
}

BLOCKS = [block for document in documents() for block in blocks_of(document)]
LEFT = [block for block in BLOCKS if not block.is_output and not any(run.runs(block) for run in RUN)]


def _python(text: str) -> Iterator[str]:
    """Yield what is wrong with a part of a program: its syntax."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        yield str(error)


def _other_language(text: str) -> Iterator[str]:
    """Yield the methods, requests and messages of the API that a program in another language names wrongly."""
    for name in re.findall(r"\b([A-Z]\w+?)Request\b", text):
        if name not in ALL_METHODS:
            yield f"no method {name}"
    for name in re.findall(r"\b(?:commerce|ordersv1|usersv1)[.](?:\w+[.]v1[.])?([A-Z]\w+)", text):
        if not _is_known(name):
            yield f"no message or service {name}"


def _is_known(name: str) -> bool:
    """Return whether a message or a service has this name, or a generated name that is made from it."""
    base = re.sub(r"^New|Client$|Grpc$|_\w+$", "", name)
    pool = Default()
    for package in ("commerce.users.v1", "commerce.orders.v1"):
        for find in (pool.FindMessageTypeByName, pool.FindServiceByName, pool.FindEnumTypeByName):
            try:
                find(f"{package}.{base}")
            except KeyError:
                continue
            return True
    return False


def _parsed(parse: Callable[[str], object], errors: type[Exception]) -> Callable[[str], Iterator[str]]:
    def problems(text: str) -> Iterator[str]:
        try:
            parse(text)
        except errors as error:
            yield str(error)

    return problems


CHECKS: dict[str, Callable[[str], Iterator[str]]] = {
    "sh": problems_of,
    # They are run below.
    "sql": lambda _text: iter(()),
    "": problems_of,
    "python": _python,
    "go": _other_language,
    "java": _other_language,
    "ini": _parsed(lambda text: configparser.ConfigParser().read_string(text), configparser.Error),
    "json": _parsed(json.loads, ValueError),
    "toml": _parsed(tomllib.loads, tomllib.TOMLDecodeError),
    "yaml": _parsed(yaml.safe_load, yaml.YAMLError),
}


@pytest.mark.parametrize("block", LEFT, ids=str)
def test_a_block_that_no_test_runs_is_right_as_far_as_it_can_be_checked(block: Block) -> None:
    if (block.document, block.language) in NO_COMMANDS:
        return
    assert block.language in CHECKS, f"{block}: no test runs this block, and none checks the language {block.language}"
    assert [*CHECKS[block.language](block.text)] == [], block


async def _run_queries(text: str, connection: asyncpg.Connection) -> None:
    """Run the statements of a block, and undo what they have done."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(text)
    finally:
        await transaction.rollback()


async def test_queries_run(connection: asyncpg.Connection) -> None:
    for block in LEFT:
        if block.language == "sql":
            await _run_queries(block.text, connection)
    with pytest.raises(asyncpg.PostgresError):
        await _run_queries("SELECT no_such_column FROM orders;", connection)


def test_every_block_names_its_language() -> None:
    assert not {block.document for block in BLOCKS if not block.language}


def test_the_tests_that_run_blocks_exist_and_run_some() -> None:
    for run in RUN:
        if run.test.endswith("/"):
            # Which pages its modules run, they say themselves.
            continue
        assert run.document.split("*")[0].split("/")[-1] in (ROOT / run.test).read_text(), run
        for language in run.languages:
            wanted = [block for block in BLOCKS if block.language == language]
            assert any(run.runs(block) for block in wanted), f"{run} has no block in {language}"


def test_no_exception_is_left_over() -> None:
    assert {(block.document, block.language) for block in LEFT} >= NO_COMMANDS


def test_wrong_commands_are_found() -> None:
    for wrong in (
        "make everything",
        "commerce destroy",
        "commerce keys create billing --forever",
        "commercectl users get ada --no-such-option",
        "pip install './client[nothing]'",
        "COMMERCE_NO_SUCH_SETTING=1 make run",
        "unknown-program | sed s/a/b/",
        "grpcurl 127.0.0.1:50051 commerce.users.v1.UserService/GetOrder",
    ):
        assert [*problems_of(wrong)], wrong
