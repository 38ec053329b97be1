"""The rules are valid, compute what they should, and are where Prometheus looks for them."""

from pathlib import Path

import pytest
import yaml

from deploy.observability.generate import PROMETHEUS_RULE, prometheus_rule
from tests.support.paths import ROOT
from tests.support.prometheus import MISSING, OBSERVABILITY, PROMTOOL, RULE_FILES, promtool, rules


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
