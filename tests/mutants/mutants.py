"""Make mutants of a source file, each with one small change, with the mutation operators of mutmut.

mutmut's own runner changes only code in functions, and none in functions with most decorators. Here the whole module is
changed, because limits, tables of transitions and tables of error codes are module-level constants.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile

import libcst as cst
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from tests.support.paths import ROOT

# Messages may be reworded. What they contain is changed, and so is a message as a whole.
_WORDS = re.compile(r"\w,? \w")


@dataclass(frozen=True)
class Place:
    """Where a line of source code is.

    Attributes:
        function: the qualified name of its function or class; empty for other module-level code.
        statement: the numbers of the lines of its statement, without those of statements inside it.
        runs_at_import: whether the line runs when the module is imported.
    """

    function: str
    statement: frozenset[int]
    runs_at_import: bool


@dataclass(frozen=True)
class Mutant:
    """A source file with one change.

    Attributes:
        file: the path in the repository.
        place: where the first changed line is.
        line: the changed source code, without indentation.
        becomes: the code after the change.
        source: the whole file after the change.
    """

    file: str
    place: Place
    line: str
    becomes: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}: {self.place.function}\n    - {self.line}\n    + {self.becomes}"


class _Visitor(MutationVisitor):
    def _create_mutations(self, node: cst.CSTNode) -> None:
        made = len(self.mutations)
        super()._create_mutations(node)
        if isinstance(node, cst.SimpleString):
            # The others change it to lower or upper case, which shows no more than any change.
            del self.mutations[made + 1 :]

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return False
        if isinstance(node, cst.SimpleString):
            return _WORDS.search(node.value) is not None
        # Static types mean nothing when the code runs.
        if isinstance(node, cst.ClassDef):
            return any(isinstance(base.value, cst.Name) and base.value.value == "TypedDict" for base in node.bases)
        if isinstance(node, cst.Assign) and isinstance(node.value, cst.Call):
            return isinstance(node.value.func, cst.Name) and node.value.func.value == "TypeVar"
        return super()._skip_node_and_children(node)


def mutants_of(file: str) -> Iterator[Mutant]:
    """Yield the different mutants of a source file that are valid Python, in the order of the source code."""
    original = (ROOT / file).read_text()
    places = _places(original)
    wrapper = MetadataWrapper(cst.parse_module(original))
    positions = wrapper.resolve(WhitespaceInclusivePositionProvider)
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    starts = list(accumulate(map(len, original.splitlines(keepends=True)), initial=0))
    seen = {original}
    for mutation in visitor.mutations:
        if isinstance(mutation.original_node, cst.BaseCompoundStatement):
            # It has lines, whose indentation depends on where it is.
            changed = cst.ensure_type(
                wrapper.module.deep_replace(mutation.original_node, mutation.mutated_node), cst.Module
            )
            source = changed.code
        else:
            position = positions[mutation.original_node]
            start = starts[position.start.line - 1] + position.start.column
            end = starts[position.end.line - 1] + position.end.column
            source = original[:start] + wrapper.module.code_for_node(mutation.mutated_node) + original[end:]
        if source in seen or not _is_valid(source):
            continue
        seen.add(source)
        number, line, becomes = _difference(original.splitlines(), source.splitlines())
        yield Mutant(file, places[number], line, becomes, source)


def intact_module(file: str) -> Mutant:
    """Return a mutant without a change, which no test may notice."""
    return Mutant(file, Place("", frozenset(), runs_at_import=True), "", "", (ROOT / file).read_text())


def broken_module(file: str) -> Mutant:
    """Return a mutant that cannot be imported, which shows whether tests import mutants of this file at all."""
    source = f'raise ImportError("{file}")\n'
    return Mutant(file, Place("", frozenset(), runs_at_import=True), "", source.strip(), source)


def _is_valid(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _difference(before: list[str], after: list[str]) -> tuple[int, str, str]:
    """Return the number of the first line that differs, and the different lines of both texts."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    before, after = before[same:], after[same:]
    while before and after and before[-1] == after[-1]:
        before.pop()
        after.pop()
    return same + 1, _one_line(before), _one_line(after)


def _one_line(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


def _places(source: str) -> dict[int, Place]:
    """Return where each line is, by its number."""
    owners: dict[int, tuple[str, int, bool]] = dict.fromkeys(range(1, source.count("\n") + 2), ("", 0, True))

    def visit(node: ast.AST, names: tuple[str, ...], at_import: bool) -> None:  # noqa: FBT001 - a recursion
        for child in ast.iter_child_nodes(node):
            inner, runs = names, at_import
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = (*names, child.name)
                runs = at_import and isinstance(child, ast.ClassDef)
            if isinstance(child, ast.stmt):
                # Statements inside this one take their lines from it afterwards.
                owner = (".".join(inner), child.lineno, at_import)
                owners.update(dict.fromkeys(range(child.lineno, (child.end_lineno or child.lineno) + 1), owner))
            visit(child, inner, runs)

    visit(ast.parse(source), (), True)  # noqa: FBT003
    lines: dict[tuple[str, int, bool], set[int]] = {}
    for number, owner in owners.items():
        lines.setdefault(owner, set()).add(number)
    return {number: Place(owner[0], frozenset(lines[owner]), owner[2]) for number, owner in owners.items()}
