"""Writes the dashboards for Grafana, and the rules for the Prometheus operator, from their descriptions.

`make dashboards` runs this. Of a dashboard, `dashboards/*.yaml` says what each panel shows; what is the same for all
panels is here. The rules are those of `rules/*.yaml`, in the resource that the operator reads.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DESCRIPTIONS = HERE / "dashboards"
DASHBOARDS = HERE / "grafana"
RULES = HERE / "rules"
PROMETHEUS_RULE = HERE / "prometheus-rule.yaml"

Json = dict[str, Any]

# What a query of a panel may begin with, instead of repeating it: the processes that were chosen above the panels, and
# the calls to the service's own methods among theirs.
PROCESSES = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
CALLS = f'{PROCESSES}, grpc_service=~"commerce[.].+"'
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Grafana's grid has 24 columns.
_COLUMNS = 24
_WIDTH, _HEIGHT = 8, 8
_VARIABLES = (
    ("namespace", "Namespace", "label_values(commerce_build_info, namespace)"),
    ("job", "Job", 'label_values(commerce_build_info{namespace=~"$namespace"}, job)'),
    ("instance", "Instance", 'label_values(commerce_build_info{namespace=~"$namespace", job=~"$job"}, instance)'),
)
_KINDS = {"timeseries", "stat", "table", "heatmap"}


def dashboards() -> Iterator[tuple[Path, str]]:
    """Yield the path and the contents of each dashboard."""
    for path in sorted(DESCRIPTIONS.glob("*.yaml")):
        dashboard = _dashboard(path.stem, yaml.safe_load(path.read_text()))
        yield DASHBOARDS / f"commerce-{path.stem}.json", json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def prometheus_rule() -> str:
    """Return the contents of the resource for the Prometheus operator."""
    files = sorted(RULES.glob("*.yaml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "commerce", "namespace": "commerce", "labels": {"app.kubernetes.io/name": "commerce"}},
        "spec": {"groups": groups},
    }
    head = "# Generated from rules/ by `make dashboards`; do not edit.\n"
    written: str = yaml.dump(resource, Dumper=_Dumper, sort_keys=False, width=120)
    return head + written


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # PyYAML has no types
    """Writes texts of several lines as such."""


def _text(dumper: Any, text: str) -> Any:  # noqa: ANN401 - PyYAML has no types
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _dashboard(name: str, described: Mapping[str, Any]) -> Json:
    return {
        "uid": f"commerce-{name}",
        "title": f"Commerce: {described['title']}",
        "description": f"{described['description']} Generated from dashboards/{name}.yaml by `make dashboards`.",
        "tags": ["commerce"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        # To the other dashboards, with what is chosen here.
        "links": [
            {
                "type": "dashboards",
                "title": "Commerce",
                "tags": ["commerce"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "annotations": {"list": [_deployments()]},
        "templating": {"list": [*_variables(described.get("variables", {}))]},
        "panels": [*_panels(described["rows"])],
    }


def _deployments() -> Json:
    return {
        "name": "Starts of processes",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"process_start_time_seconds{{{PROCESSES}}} * 1000",
        "useValueForTime": True,
        "titleFormat": "started",
        "textFormat": "{{instance}} {{worker}}",
    }


def _variables(further: Mapping[str, str]) -> Iterator[Json]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
    }
    others = ((name, name.capitalize(), query) for name, query in further.items())
    for name, label, query in (*_VARIABLES, *others):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _DATASOURCE,
            "definition": _expanded(query),
            "query": {"query": _expanded(query), "refId": name},
            # Outside of Kubernetes, processes have no namespace. Jobs and instances are only those that were found:
            # other programs have metrics of the process, too.
            "includeAll": True,
            **({} if name in {"job", "instance"} else {"allValue": ".*"}),
            "multi": True,
            "current": {"text": ["All"], "value": ["$__all"]},
            # When the time changes.
            "refresh": 2,
            "sort": 1,
        }


def _panels(rows: Sequence[Mapping[str, Any]]) -> Iterator[Json]:
    number = y = 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row["title"],
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        x, y, height = 0, y + 1, 0
        for described in row["panels"]:
            number += 1
            width, tall = described.get("width", _WIDTH), described.get("height", _HEIGHT)
            if x + width > _COLUMNS:
                x, y, height = 0, y + height, 0
            yield _panel(number, described, {"x": x, "y": y, "w": width, "h": tall})
            x, height = x + width, max(height, tall)
        y += height


def _panel(number: int, described: Mapping[str, Any], position: Json) -> Json:
    kind = described.get("kind", "timeseries")
    if kind not in _KINDS:
        raise ValueError(f"panel {described['title']!r}: there is no kind {kind!r}")
    defaults: Json = {"unit": described["unit"]}
    defaults |= {name: described[name] for name in ("min", "max", "decimals", "noValue") if name in described}
    if mappings := described.get("mappings"):
        options = {str(value): {"text": text, "index": index} for index, (value, text) in enumerate(mappings.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if limits := described.get("thresholds"):
        # The first has no lower bound.
        bounds = [None, *list(limits)[1:]]
        steps = [{"value": at, "color": color} for at, color in zip(bounds, limits.values(), strict=True)]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    panel: Json = {
        "id": number,
        "type": kind,
        "title": described["title"],
        "description": described["description"],
        "datasource": _DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(kind, described),
        "targets": [*_targets(kind, described)],
    }
    if kind == "timeseries":
        stacking = {"mode": "normal", "group": "A"} if described.get("stack") else {"mode": "none", "group": "A"}
        fill = 30 if described.get("stack") else 5
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "stacking": stacking}
        if limits:
            defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    if kind == "table":
        # The columns are labels; the time of the query is the same in all rows.
        hidden = {"Time": True, **dict.fromkeys(described.get("hidden", ()), True)}
        panel["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return panel


def _options(kind: str, described: Mapping[str, Any]) -> Json:
    match kind:
        case "timeseries":
            return {
                "legend": {
                    "displayMode": "table",
                    "placement": "bottom",
                    "showLegend": True,
                    "calcs": ["lastNotNull", "max"],
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case "stat":
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "colorMode": "background" if described.get("thresholds") else "value",
                "graphMode": "area",
                "textMode": "auto",
            }
        case "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
                "yAxis": {"unit": described["unit"]},
            }
        case _:
            return {"showHeader": True, "cellHeight": "sm"}


def _targets(kind: str, described: Mapping[str, Any]) -> Iterator[Json]:
    for index, (legend, query) in enumerate(described["queries"].items()):
        target: Json = {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "expr": _expanded(query),
            "legendFormat": legend,
        }
        if kind == "table":
            target |= {"instant": True, "format": "table"}
        if kind == "heatmap":
            target |= {"format": "heatmap"}
        if described.get("exemplars"):
            target["exemplar"] = True
        yield target


def _expanded(query: str) -> str:
    return " ".join(query.replace("{PROCESSES", f"{{{PROCESSES}").replace("{CALLS", f"{{{CALLS}").split())


def main() -> None:
    """Write all files."""
    for path, contents in dashboards():
        path.write_text(contents)
    PROMETHEUS_RULE.write_text(prometheus_rule())


if __name__ == "__main__":
    main()
