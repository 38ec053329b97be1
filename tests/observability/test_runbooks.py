"""Each alert leads to a runbook that says what to do, with commands, log lines and panels that exist."""

import re
from pathlib import Path

import click
import pytest
import yaml

from service.cli.main import main
from tests.support.documents import blocks_of
from tests.support.panels import dashboards, panels
from tests.support.paths import ROOT
from tests.support.prometheus import alerts

RUNBOOKS = ROOT / "docs" / "runbooks.md"
ALERTS = ROOT / "docs" / "alerts.md"
TEXT = RUNBOOKS.read_text()
# Without the line breaks of texts.
FLAT = " ".join(TEXT.split())
BLOCKS = [block.text for block in blocks_of("docs/runbooks.md")]
CODE = re.findall(r"(?<!`)`([^`]+)`(?!`)", FLAT)


def sections() -> dict[str, str]:
    """Return the sections of the runbooks by their headings."""
    parts = re.split(r"^## (.+)\n", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_it_is_and_leads_to_its_runbook(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert "{{" not in annotations["summary"]
    assert not annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    # As GitHub and others make the fragment of a heading.
    assert annotations["runbook_url"] == f"{RUNBOOKS.relative_to(ROOT)}#{name.lower()}"
    for part in ("Cause", "Look", "Do"):
        assert f"**{part}.**" in sections()[name], part


def test_every_section_is_about_an_alert() -> None:
    assert sections().keys() - alerts().keys() == {"Before you begin"}


def test_the_document_lists_every_alert() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\S+)\) \| (\w+) \| (.+?) \|", ALERTS.read_text(), re.MULTILINE)
    listed = {name: (link, severity, waits) for name, link, severity, waits in rows}
    assert listed == {
        name: (f"runbooks.md#{name.lower()}", alert["labels"]["severity"], alert.get("for", "-"))
        for name, alert in alerts().items()
    }


def test_commands_exist() -> None:
    assert isinstance(main, click.Group)
    text = "\n".join([*CODE, *BLOCKS])
    # Not the namespace that kubectl is given, and not the service of Docker Compose.
    commands = re.compile(r"(?:^|(?<!-n) |/)(?<!deployment/)commerce ([a-z][a-z-]*(?: --[a-z-]+)*)", re.MULTILINE)
    named = commands.findall(text)
    for command in named:
        name, *options = command.split()
        assert name in main.commands, command
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert {*options} <= known, command
    assert len(named) > 10


def test_resources_of_kubernetes_exist() -> None:
    resources = [
        resource
        for path in (ROOT / "deploy" / "kubernetes").rglob("*.yaml")
        for resource in yaml.safe_load_all(path.read_text())
        if resource and "kind" in resource and "metadata" in resource
    ]
    names = {(resource["kind"].lower(), resource["metadata"]["name"]) for resource in resources}
    labels = {resource["metadata"].get("labels", {}).get("app.kubernetes.io/component") for resource in resources}
    text = "\n".join([*CODE, *BLOCKS])
    named = re.findall(r"\b(deployment|cronjob)[/ ](commerce[\w-]*)", text)
    named += [("certificate", name) for name in re.findall(r"certificate (\w+)$", text, re.MULTILINE)]
    assert {*named} <= names
    assert {*re.findall(r"app\.kubernetes\.io/component=([\w-]+)", text)} <= labels
    assert len(named) > 5


def test_lines_of_the_log_exist() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    texts = (line for line in CODE if re.fullmatch(r"[A-Za-z]+(?: [a-z:]+){1,9}", line))
    named = {line for line in texts if not line.startswith(("commerce ", "docker "))}
    assert {line for line in named if f'"{line}' not in source} == set()
    assert len(named) > 8


def test_panels_exist() -> None:
    titles = {title.removeprefix("Commerce: ") for title in dashboards()}
    titles |= {panel["title"] for dashboard in dashboards().values() for panel in panels(dashboard)}
    named = {*re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", FLAT)}
    assert named <= titles
    assert len(named) > 15


def test_settings_exist() -> None:
    known = Path(ROOT / "docs" / "settings.md").read_text()
    for name in re.findall(r"COMMERCE_[A-Z_]+|READ_DATABASE_URL", TEXT):
        assert f"`{name}`" in known, name
