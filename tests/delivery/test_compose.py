"""compose.yaml is valid, and agrees with what the service has."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.main import main
from service.config import DatabaseSettings, RelaySettings, ServerSettings, Settings, environment_name, load
from service.rpc.transport.exposure import exposures, http_exposures
from service.runtime.exit_deadline import drain_seconds
from tests.support.paths import ROOT

COMPOSE = ROOT / "compose.yaml"
SERVICES: Mapping[str, Mapping[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
OURS: Mapping[str, type[Settings]] = {"migrate": DatabaseSettings, "server": ServerSettings, "relay": RelaySettings}


@pytest.fixture(params=OURS)
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Mapping[str, Any], Settings]:
    """A service with our image, and its settings."""
    found = SERVICES[request.param]
    for name, value in found["environment"].items():
        monkeypatch.setenv(name, value)
    return found, load(OURS[request.param])


def test_it_follows_the_schema_of_compose_files(tmp_path: Path) -> None:
    check = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*check, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("read_only:", "readonly:"))
    checked = subprocess.run([*check, str(wrong)], capture_output=True, text=True, check=False)
    assert (checked.returncode, "readonly" in checked.stdout) == (1, True)


def test_every_variable_is_a_setting_and_every_command_exists(service: tuple[Mapping[str, Any], Settings]) -> None:
    found, settings = service
    kind = type(settings)
    assert found["environment"].keys() <= {environment_name(kind, field) for field in kind.model_fields}
    name, *arguments = found["command"]
    main.commands[name].make_context(name, arguments, main.make_context("commerce", [*found["command"]]))
    assert found["read_only"]
    assert found["cap_drop"] == ["ALL"]


def test_the_server_is_reached_from_this_machine_only_and_has_the_time_to_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = SERVICES["server"]
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load(ServerSettings)
    assert exposures(settings, has_identities=settings.has_identities)[0] == []
    assert http_exposures(settings)[0] == []
    assert server["ports"] == [f"127.0.0.1:{port}:{port}" for port in (settings.port, settings.http_port)]
    for name, found in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in found.get("ports", ())), name
    seconds = float(server["stop_grace_period"].removesuffix("s"))
    assert seconds >= drain_seconds(settings.max_connection_age, settings.shutdown_grace) + 5
    _, program, command, name = server["healthcheck"]["test"]
    assert (program, command in main.commands, name) == ("commerce", True, "readiness")


def test_prometheus_reads_the_metrics_of_the_server_and_the_relay() -> None:
    configs = yaml.safe_load(COMPOSE.read_text())["configs"]
    (job,) = yaml.safe_load(configs["prometheus"]["content"])["scrape_configs"]
    (group,) = job["static_configs"]
    expected = {f"{name}:{SERVICES[name]['environment']['COMMERCE_METRICS_PORT']}" for name in ("server", "relay")}
    assert set(group["targets"]) == expected
    (source,) = yaml.safe_load(configs["grafana"]["content"])["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_the_server_starts_after_its_schema_and_its_broker_exist() -> None:
    for name in ("server", "relay"):
        needed = SERVICES[name]["depends_on"]
        assert needed["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert "nats" in SERVICES["relay"]["depends_on"]
    used = {name for found in SERVICES.values() for name in found.get("depends_on", {})}
    assert used <= SERVICES.keys()
