"""Checks of commands in documents that no test runs: that what they name exists, as far as this repository has it."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from itertools import dropwhile

import click
from commerce.client.cli.main import cli as commercectl

from service.cli.main import main as commerce
from service.config import environment_name
from service.devtools.settings_tables import KINDS
from tests.support.methods import ALL_METHODS
from tests.support.paths import ROOT

# Programs that need what a test does not have: a cluster, a registry of images, a network, another language. Their
# commands are not checked here; tests of their own check those of docs/kubernetes.md.
OUTSIDE = {
    "docker": "builds or starts containers",
    "find": "lists files",
    "envoy": "runs until it is stopped; tests/envoy runs it with the same configuration",
    "go": "another language",
    "grep": "searches what it reads",
    "grpcurl": "tests/delivery/test_tour.py runs it where its package exists; the names of methods are checked here",
    "kill": "sends a signal",
    "kind": "starts a cluster",
    "kubectl": "needs a cluster",
    "npm": "needs a registry; tests/clients packs and installs the package",
    "opentelemetry-instrument": "a program of OpenTelemetry",
    "pg_dump": "tests/db/operations restores dumps that it has made",
    "promtool": "a program of Prometheus",
    "protoc": "needs the plugins of another language",
    "psql": "as pg_dump",
    "sed": "writes what it is given",
    "sudo": "runs a command as another user",
}
_OURS: Mapping[str, click.Command] = {"commerce": commerce, "commercectl": commercectl}
# Read from the environment, but no settings of the service.
_OTHER_VARIABLES = {"COMMERCE_ADDRESS", "COMMERCE_API_KEY", "COMMERCE_TOKEN", "COMMERCECTL_CONFIG"}
_ASSIGNMENT = re.compile(r"(\w+)=")
_METHOD = re.compile(r"(commerce[.]\w+[.]v1[.]\w+)/(\w+)")


def problems_of(text: str) -> Iterator[str]:
    """Yield what is wrong with the commands of a block, such as a name that does not exist."""
    for service, method in _METHOD.findall(text):
        found = ALL_METHODS.get(method)
        if found is None or found.containing_service.full_name != service:
            yield f"no method {service}/{method}"
    for words in commands_of(text):
        variables = [assigned[1] for word in words if (assigned := _ASSIGNMENT.match(word))]
        yield from (problem for name in variables for problem in _problems_of_variable(name))
        command = [*dropwhile(lambda word: word == "export" or _ASSIGNMENT.match(word), words)]
        if command:
            yield from _problems_of_command(command)


def commands_of(text: str) -> Iterator[list[str]]:
    r"""Yield the words of each command of a block, of pipes and lists of commands too.

    >>> list(commands_of("a -b 'c d' | e  # f\n(cd g && h)"))
    [['a', '-b', 'c d'], ['e'], ['cd', 'g'], ['h']]
    """
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for word in lexer:
            if set(word) <= set("();|&"):
                yield from [words] if words else []
                words = []
            else:
                words.append(word)
        yield from [words] if words else []


def _problems_of_variable(name: str) -> Iterator[str]:
    known = {environment_name(kind, field) for kind in KINDS for field in kind.model_fields} | _OTHER_VARIABLES
    if name.startswith("COMMERCE") and name.removesuffix("_FILE") not in known and name not in known:
        yield f"no setting {name}"


def _problems_of_command(words: list[str]) -> Iterator[str]:
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    match program:
        case "cd" | "echo" | "true":
            return
        case "make":
            targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            yield from (f"no target {word}" for word in arguments if "=" not in word and word not in targets)
        case "pip":
            yield from _problems_of_requirements(arguments[1:])
        case "commerce" | "commercectl":
            yield from _problems_of_options(_OURS[program], arguments)
        case _ if program not in OUTSIDE:
            yield f"no test runs {program}, and it is not in {__name__}"


def _problems_of_requirements(requirements: list[str]) -> Iterator[str]:
    """Yield the packages of this repository, and their extras, that do not exist."""
    packages = {"commerce-client": "client", "commerce-service": "."}
    for requirement in requirements:
        found = re.fullmatch(r"([\w./-]+?)(?:\[([\w,]+)\])?", requirement)
        folder = packages.get(found[1], found[1]) if found else ""
        if not found or (not folder.startswith(".") and found[1] not in packages):
            # A package of others.
            continue
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for extra in (found[2] or "").split(","):
            if extra and extra not in project["optional-dependencies"]:
                yield f"no extra {extra} of {folder}"


def _problems_of_options(command: click.Command, arguments: list[str]) -> Iterator[str]:
    """Yield the commands and options that do not exist."""
    options = _options_of(command)
    words = iter(arguments)
    for word in words:
        if word.startswith("-") and word != "-":
            option = options.get(word.partition("=")[0])
            if option is None and word not in {"-h", "--help"}:
                yield f"no option {word}"
            elif option is not None and not option.is_flag and "=" not in word:
                # Its value.
                next(words, None)
        elif isinstance(command, click.Group):
            found = command.commands.get(word)
            if found is None:
                yield f"no command {word}"
                return
            command = found
            options |= _options_of(command)


def _options_of(command: click.Command) -> dict[str, click.Option]:
    return {
        name: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
