import ast
import inspect
from pathlib import Path

from service import db
from tests.sql.catalogue import BATCHED, QUERIES, QUESTIONS, catalogue, compiled, compiled_statements, readable
from tests.sql.golden import check, check_names

FOLDER = Path(__file__).parent / "statements"


async def test_the_golden_files_show_every_statement() -> None:
    statements = await catalogue()
    for name, statement in statements.items():
        check(FOLDER, name, readable(name, statement))
    check_names(FOLDER, statements)


def test_the_golden_files_show_what_the_driver_gets() -> None:
    for statement in compiled_statements():
        assert str(compiled(statement.core)) == statement.text


async def test_every_compiled_statement_is_in_the_catalogue() -> None:
    shown = {name.partition(".")[0] for name in await catalogue()}
    assert set(names_of_compiled_statements()) <= shown


def test_every_query_is_asked() -> None:
    methods = {
        f"{queries.__name__}.{name}"
        for queries in QUERIES
        for name, _ in inspect.getmembers(queries, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods == {question.method for question in QUESTIONS.values()} | BATCHED


def names_of_compiled_statements() -> list[str]:
    """Return all names that the code gives to compiled statements."""
    calls = [
        node
        for file in Path(db.__path__[0]).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Statement"
    ]
    return [
        str(literal.value) for call in calls for literal in ast.walk(call.args[0]) if isinstance(literal, ast.Constant)
    ]
