"""Formats SQL for readers: a line for each clause, column and condition, and subqueries indented."""

import re

_PART = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|[(),]|[^\s(),'\"]+")
_QUERIES = frozenset({"WITH", "SELECT", "INSERT", "UPDATE", "DELETE"})
# Each begins a line, unless the word before is among those given.
_CLAUSES = {
    **dict.fromkeys(("SELECT", "INSERT", "DELETE", "VALUES", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT"), ()),
    **dict.fromkeys(("UNION", "RETURNING", "FOR", "LEFT", "FULL"), ()),
    "UPDATE": ("FOR", "KEY", "DO"),
    "SET": ("UPDATE",),
    "FROM": ("DELETE", "DISTINCT"),
    "JOIN": ("LEFT", "OUTER", "FULL"),
}
_CONDITIONS = frozenset({"AND", "OR"})
# Words with a space between them and a bracket; any other is the name of a function or a table.
_BEFORE_BRACKETS = frozenset(
    {"AND", "OR", "NOT", "IN", "AS", "WHERE", "ON", "SELECT", "FROM", "WHEN", "THEN", "ELSE", "CASE", "VALUES", "ALL"}
    | {"CONFLICT", "LATERAL", "BY", "EXISTS", "MATERIALIZED", "INTO", "JOIN", "UNION", "FILTER", "USING"}
)
_STEP = 4


def format_sql(text: str) -> str:
    """Return a statement, formatted; what is in quotes stays as it is."""
    formatter = _Formatter()
    parts = _PART.findall(text.strip().rstrip(";"))
    for index, part in enumerate(parts):
        before = parts[index - 1].upper() if index else ""
        rest = (following.upper() for following in parts[index + 1 :] if following != "(")
        formatter.add(part, before, next(rest, ""))
    return "\n".join(line.rstrip() for line in formatter.lines if line.strip()) + ";"


def _begins_clause(word: str, before: str, following: str) -> bool:
    if word == "WITH":
        return not before.endswith("TIMESTAMP")
    if word == "ON":
        return following == "CONFLICT"
    return word in _CLAUSES and before not in _CLAUSES[word]


class _Formatter:
    def __init__(self) -> None:
        self.lines = [""]
        # For each open bracket, how far the lines in it are indented; None where it holds no query.
        self._brackets: list[int | None] = [0]
        # In the list of common table expressions that WITH begins.
        self._with: set[int] = set()

    def add(self, part: str, before: str, following: str) -> None:
        """Add a part between the part before it and the first one after it that is not a bracket."""
        word, indent = part.upper(), self._brackets[-1]
        if part == ")":
            self._close(indent)
        elif part == ",":
            self.lines[-1] += part
            if indent is not None:
                self._new_line(indent if len(self._brackets) in self._with else indent + _STEP)
        elif indent is not None and _begins_clause(word, before, following):
            self._with.discard(len(self._brackets))
            if word == "WITH":
                self._with.add(len(self._brackets))
            self._new_line(indent)
            self.lines[-1] += part
        elif indent is not None and word in _CONDITIONS:
            self._new_line(indent + _STEP)
            self.lines[-1] += part
        else:
            self.lines[-1] += f"{self._space(part, before)}{part}"
        if part == "(":
            self._open(is_query=following in _QUERIES)

    def _open(self, *, is_query: bool) -> None:
        if not is_query:
            self._brackets.append(None)
            return
        line = self.lines[-1]
        self._brackets.append(len(line) - len(line.lstrip()) + _STEP)
        self._new_line(self._brackets[-1] or 0)

    def _close(self, indent: int | None) -> None:
        self._with.discard(len(self._brackets))
        self._brackets.pop()
        if indent is not None:
            self._new_line(indent - _STEP)
        self.lines[-1] += ")"

    def _new_line(self, indent: int) -> None:
        if self.lines[-1].strip():
            self.lines.append("")
        self.lines[-1] = " " * indent

    def _space(self, part: str, before: str) -> str:
        line = self.lines[-1]
        if not line.strip() or line.endswith("(") or part.startswith(("::", ".", "[")):
            return ""
        calls = part == "(" and before not in _BEFORE_BRACKETS and re.search(r"[\w\"]$", before)
        return "" if calls else " "
