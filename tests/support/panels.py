"""The dashboards for Grafana, their panels and their queries."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.prometheus import OBSERVABILITY, rules

DASHBOARD_FILES = sorted((OBSERVABILITY / "grafana").glob("*.json"))
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")

Json = Mapping[str, Any]


class Query(NamedTuple):
    """A query.

    Attributes:
        where: where it is, for messages.
        text: the query.
        labels: the labels of its result that are shown.
    """

    where: str
    text: str
    labels: frozenset[str] = frozenset()


def dashboards() -> dict[str, Json]:
    """Return the dashboards by their titles."""
    found = [json.loads(path.read_text()) for path in DASHBOARD_FILES]
    return {dashboard["title"]: dashboard for dashboard in found}


def panels(dashboard: Json) -> list[Json]:
    """Return the panels of a dashboard without the headings of its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Yield all queries: of rules, panels, variables and annotations."""
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule.get("annotations", {}).values())))
        yield Query(name, rule["expr"], frozenset(shown))
    for title, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                # The legend of a table is not shown: its columns are the labels.
                legend = "" if panel["type"] == "table" else target["legendFormat"]
                shown = set(re.findall(r"{{(\w+)}}", legend))
                yield Query(f"{title}: {panel['title']}", target["expr"], frozenset(shown))
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                matched = _LABEL_VALUES.fullmatch(variable["definition"])
                assert matched, variable["definition"]
                yield Query(f"{title}: ${variable['name']}", matched[1], frozenset({matched[2]}))
        for annotation in dashboard["annotations"]["list"]:
            shown = set(re.findall(r"{{(\w+)}}", annotation["textFormat"]))
            yield Query(f"{title}: {annotation['name']}", annotation["expr"], frozenset(shown))
