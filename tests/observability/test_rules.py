"""The rules are valid, compute what they should, and are where Prometheus looks for them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.observability.generate import PROMETHEUS_RULE, prometheus_rule
from tests.support.paths import ROOT
from tests.support.prometheus import MISSING, OBSERVABILITY, PROMTOOL, RULE_FILES, alerts, promtool, rules

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason=MISSING)


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES).count("SUCCESS") == len(RULE_FILES)


@needs_promtool
def test_promtool_accepts_the_configuration_of_compose(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    configuration = yaml.safe_load(compose["configs"]["prometheus"]["content"])
    # The folder is mounted there.
    (pattern,) = configuration["rule_files"]
    mounted = f"./deploy/observability/rules:{Path(pattern).parent}:ro"
    assert mounted in compose["services"]["prometheus"]["volumes"]
    configuration["rule_files"] = [str(OBSERVABILITY / "rules" / Path(pattern).name)]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    printed = promtool("check", "config", tmp_path / "prometheus.yml")
    assert f"{len(RULE_FILES)} rule files found" in printed


@needs_promtool
def test_the_objectives_are_missed_when_they_should_be() -> None:
    assert "SUCCESS" in promtool("test", "rules", OBSERVABILITY / "rules_test.yaml")


def test_the_operator_gets_the_same_rules() -> None:
    # `make dashboards` writes them.
    assert PROMETHEUS_RULE.read_text() == prometheus_rule()
    groups = yaml.safe_load(PROMETHEUS_RULE.read_text())["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == [*rules()]
    assert len({group["name"] for group in groups}) == len(groups)


@needs_promtool
def test_promtool_accepts_the_configuration_of_the_document(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("yaml") if "scrape_configs" in block)
    configuration = yaml.safe_load(block)
    names = [Path(name).name for name in configuration["rule_files"]]
    assert sorted(names) == [path.name for path in RULE_FILES]
    configuration["rule_files"] = list(map(str, RULE_FILES))
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


def test_the_command_of_the_document_makes_links_absolute(tmp_path: Path) -> None:
    shutil.copytree(OBSERVABILITY / "rules", tmp_path / "rules")
    (command,) = (block for block in blocks("sh") if block.startswith("sed"))
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    links = [
        rule["annotations"]["runbook_url"]
        for path in (tmp_path / "rules").iterdir()
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert links
    assert all(link.startswith("https://git.example.com/commerce/blob/main/docs/runbooks.md#") for link in links)


def test_the_routes_of_the_document_name_alerts_and_labels_that_exist() -> None:
    (block,) = (block for block in blocks("yaml") if "inhibit_rules" in block)
    configuration = yaml.safe_load(block)
    assert configuration["route"]["routes"][0]["matchers"] == ['severity="page"']
    receivers = {receiver["name"] for receiver in configuration["receivers"]}
    assert receivers == {configuration["route"]["receiver"], configuration["route"]["routes"][0]["receiver"]}
    (inhibited,) = configuration["inhibit_rules"]
    for side in ("source_matchers", "target_matchers"):
        (pattern,) = re.findall(r'^alertname=~"(.+)"$', inhibited[side][0])
        assert len([name for name in alerts() if re.fullmatch(pattern, name)]) == 2


def blocks(language: str) -> list[str]:
    """Return the blocks of a language in docs/alerts.md."""
    text = (ROOT / "docs" / "alerts.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
