"""The dashboards follow Grafana's format, are laid out and explained, and show every metric."""

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from deploy.observability import generate
from service.observability.metrics.catalogue import FAMILIES
from tests.support.panels import DASHBOARD_FILES, dashboards, panels, queries
from tests.support.paths import ROOT
from tests.support.prometheus import OBSERVABILITY
from tests.support.promql import selectors, without_variables

SCHEMA = Draft202012Validator(json.loads((ROOT / "tests/observability/dashboard.schema.json").read_text()))

each_dashboard = pytest.mark.parametrize("dashboard", dashboards().values(), ids=dashboards())


def test_the_dashboards_are_those_of_their_descriptions() -> None:
    # `make dashboards` writes them.
    assert {path: path.read_text() for path in DASHBOARD_FILES} == dict(generate.dashboards())


@each_dashboard
def test_a_dashboard_follows_the_format(dashboard: Mapping[str, Any]) -> None:
    assert [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(dashboard)] == []
    misspelled = json.loads(json.dumps(dashboard).replace('"gridPos"', '"gridPosition"'))
    assert not SCHEMA.is_valid(misspelled)


@each_dashboard
def test_panels_do_not_overlap_and_leave_no_holes_above_them(dashboard: Mapping[str, Any]) -> None:
    cells: dict[tuple[int, int], int] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert cells.setdefault((x, y), panel["id"]) == panel["id"], panel["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    # The left column has no hole, so Grafana does not move panels up.
    assert {y for x, y in cells if x == 0} == set(range(max(y for _, y in cells) + 1))


@each_dashboard
def test_panels_say_what_they_show(dashboard: Mapping[str, Any]) -> None:
    shown = panels(dashboard)
    assert len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["title"][:1].isupper(), panel["title"]
        for one, other in combinations(panel["targets"], 2):
            assert one["legendFormat"] != other["legendFormat"], panel["title"]


def test_every_metric_is_shown() -> None:
    names = {selector.name for query in queries() for selector in selectors(without_variables(query.text))}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    missing = [
        family.name
        for family in FAMILIES.values()
        if not names & {f"{family.name}{suffix}" for suffix in suffixes[family.kind]}
    ]
    assert missing == []


def test_a_grafana_on_kubernetes_finds_every_dashboard() -> None:
    component = yaml.safe_load((OBSERVABILITY / "kustomization.yaml").read_text())
    files = [file for generator in component["configMapGenerator"] for file in generator["files"]]
    assert sorted(files) == [str(path.relative_to(OBSERVABILITY)) for path in DASHBOARD_FILES]
    for generator in component["configMapGenerator"]:
        assert generator["options"]["labels"]["grafana_dashboard"] == "1"
    # `kubectl apply` stores a copy in an annotation of at most 256 KiB.
    assert all(path.stat().st_size < 200_000 for path in DASHBOARD_FILES)


def test_the_grafana_of_compose_finds_every_dashboard() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (provider,) = yaml.safe_load(compose["configs"]["dashboards"]["content"])["providers"]
    folder = provider["options"]["path"]
    grafana = compose["services"]["grafana"]
    assert f"./deploy/observability/grafana:{folder}:ro" in grafana["volumes"]
    targets = {config["target"] for config in grafana["configs"]}
    assert "/etc/grafana/provisioning/dashboards/commerce.yaml" in targets
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in {f"{folder}/{path.name}" for path in DASHBOARD_FILES}
