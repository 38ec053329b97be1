"""The manifests of deploy/kubernetes agree with what the service has: settings, ports, probes, files and times."""

import configparser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import click
import pytest

from service.cli.main import main
from service.config import (
    DatabaseSettings,
    GcSettings,
    RelaySettings,
    ServerSettings,
    Settings,
    environment_name,
    is_secret,
    load,
)
from service.environment import FILE_SUFFIX
from service.observability.metrics.catalogue import RUNNING_CALLS
from service.rpc.identity.policy_file import PolicyFile
from service.rpc.transport.exposure import exposures, http_exposures
from service.runtime.exit_deadline import drain_seconds
from service.server import SERVICES
from tests.support.manifests import OVERLAYS, Resource, Workload, named, render, workloads

SETTINGS: Mapping[str, type[Settings]] = {
    "serve": ServerSettings,
    "migrate": DatabaseSettings,
    "gc": GcSettings,
    "verify-ledger": DatabaseSettings,
    "relay": RelaySettings,
}
# The names that grpc.health.v1.Health knows; the empty one is that of the server.
HEALTH_NAMES = {"", "readiness", *SERVICES}
# Connections of a server beside its pool and its exports: the readiness probe, and two for watches and one more.
FURTHER_CONNECTIONS = 4
DATABASE = "postgresql://commerce:secret@db.example.com/commerce"
FILES = {"url": DATABASE, "direct-url": DATABASE}

BY_CALLS = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../production
components:
  - ../../components/autoscaling-by-calls
"""

Rendered = Mapping[str, Sequence[Resource]]


def of_the_service(rendered: Rendered) -> Iterator[tuple[str, Workload, dict[str, str]]]:
    """Yield the workloads with the image of the service: the overlay, the workload and its environment variables."""
    for overlay, resources in rendered.items():
        for workload in workloads(resources):
            if workload.is_of_the_service:
                yield overlay, workload, workload.environment(resources)


@pytest.fixture(params=OVERLAYS)
def server(request: pytest.FixtureRequest, rendered: Rendered) -> tuple[Workload, dict[str, str]]:
    """The servers of an overlay, with their environment variables."""
    workload = named(rendered[request.param], "commerce")
    return workload, workload.environment(rendered[request.param])


def settings_of(environment: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> ServerSettings:
    """Return the settings that a server with these variables has, with the secrets of its files."""
    for name, value in environment.items():
        if name.endswith(f"URL{FILE_SUFFIX}"):
            file = folder / PurePosixPath(value).name
            file.write_text(FILES[file.name])
            monkeypatch.setenv(name, str(file))
        else:
            monkeypatch.setenv(name, value)
    return load(ServerSettings)


def test_every_container_of_the_service_runs_a_command_that_exists(rendered: Rendered) -> None:
    assert isinstance(main, click.Group)
    for _, workload, _ in of_the_service(rendered):
        assert "command" not in workload.container
        arguments = [*workload.container["args"]]
        parent = main.make_context("commerce", [*arguments])
        command = main.commands[arguments.pop(0)]
        # It parses the rest; a wrong option raises.
        command.make_context(command.name, arguments, parent)


def test_every_variable_is_a_setting_of_the_command(rendered: Rendered) -> None:
    for overlay, workload, environment in of_the_service(rendered):
        kind = SETTINGS[workload.container["args"][0]]
        known = {environment_name(kind, field) for field in kind.model_fields}
        known |= {
            f"{environment_name(kind, field)}{FILE_SUFFIX}" for field in kind.model_fields if is_secret(kind, field)
        }
        assert environment.keys() <= known, (overlay, workload.name)
        # No secret is in a variable, which `kubectl describe` shows.
        secret = {environment_name(kind, field) for field in kind.model_fields if is_secret(kind, field)}
        assert not environment.keys() & secret, (overlay, workload.name)


def test_every_file_of_a_setting_is_mounted(rendered: Rendered) -> None:
    for overlay, workload, environment in of_the_service(rendered):
        for name, path in environment.items():
            if not name.endswith(FILE_SUFFIX):
                continue
            volume = workload.mounts[str(PurePosixPath(path).parent)]
            if items := volume.get("secret", {}).get("items"):
                assert PurePosixPath(path).name in {item["path"] for item in items}, (overlay, name)


def test_the_settings_are_accepted_and_let_in_nobody_unknown(
    server: tuple[Workload, dict[str, str]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(server[1], tmp_path, monkeypatch)
    problems, allowed = exposures(settings, has_identities=settings.has_identities)
    development = request.node.callspec.params["server"] == "development"
    assert (problems, bool(allowed)) == ([], development)
    assert http_exposures(settings) == ([], [])
    assert bool(settings.policy_file) != development


def test_the_port_is_that_of_the_container_and_of_the_services(
    server: tuple[Workload, dict[str, str]], request: pytest.FixtureRequest, rendered: Rendered
) -> None:
    workload, environment = server
    ports = {port["name"]: str(port["containerPort"]) for port in workload.container["ports"]}
    assert ports["grpc"] == environment["COMMERCE_PORT"]
    assert ports.get("http") == environment.get("COMMERCE_HTTP_PORT")
    for resource in rendered[request.node.callspec.params["server"]]:
        if resource["kind"] == "Service" and resource["metadata"]["name"] in {"commerce", "commerce-headless"}:
            (port,) = resource["spec"]["ports"]
            assert str(port["port"]) == environment["COMMERCE_PORT"]
            # Not with TLS, which hides what is in it.
            plaintext = "COMMERCE_TLS_CERTIFICATE_FILE" not in environment
            assert (port.get("appProtocol") == "kubernetes.io/h2c") == plaintext


@pytest.mark.parametrize("overlay", ["production", "mtls"])
def test_the_metrics_of_servers_and_relays_are_found_where_they_are(rendered: Rendered, overlay: str) -> None:
    resources = rendered[overlay]
    (monitor,) = (found["spec"] for found in resources if found["kind"] == "ServiceMonitor")
    (service,) = (
        found["spec"]
        for found in resources
        if found["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= found["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["endpoints"]
    assert (endpoint["path"], [endpoint["port"]]) == ("/metrics", [port["name"] for port in service["ports"]])
    found = [pod for pod in workloads(resources) if service["selector"].items() <= pod.labels.items()]
    assert {pod.name for pod in found} == {"commerce", "commerce-relay"}
    for pod in found:
        environment = pod.environment(resources)
        ports = {port["name"]: str(port["containerPort"]) for port in pod.container["ports"]}
        assert ports[service["ports"][0]["targetPort"]] == environment["COMMERCE_METRICS_PORT"]
        # Otherwise the server does not start.
        assert (environment["COMMERCE_METRICS_HOST"], environment["COMMERCE_METRICS_OPEN"]) == ("0.0.0.0", "true")  # noqa: S104


def test_the_autoscaler_by_calls_uses_a_metric_that_exists(manifests: Path) -> None:
    folder = manifests / "overlays" / "by-calls"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(BY_CALLS)
    (scaler,) = (found for found in render(folder) if found["kind"] == "HorizontalPodAutoscaler")
    by_cpu, by_calls = scaler["spec"]["metrics"]
    assert by_cpu["type"] == "Resource"
    assert by_calls["pods"]["metric"]["name"] == RUNNING_CALLS.documented_name


def test_probes_ask_for_what_health_knows(server: tuple[Workload, dict[str, str]]) -> None:
    workload, environment = server
    probes = {name: workload.container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    asked: dict[str, str] = {}
    for name, probe in probes.items():
        if "grpc" in probe:
            # The kubelet has no TLS for gRPC.
            assert "COMMERCE_TLS_CERTIFICATE_FILE" not in environment
            assert str(probe["grpc"]["port"]) == environment["COMMERCE_PORT"]
            asked[name] = probe["grpc"].get("service", "")
        else:
            program, command, *names = probe["exec"]["command"]
            assert (program, command in main.commands) == ("commerce", True)
            # It works with client certificates, too.
            socket = PurePosixPath(environment["COMMERCE_UNIX_SOCKET"])
            assert "emptyDir" in workload.mounts[str(socket.parent)]
            asked[name] = names[0] if names else ""
    assert set(asked.values()) <= HEALTH_NAMES
    # A server that is not ready because of its database must not be restarted.
    assert asked == {"startupProbe": "", "readinessProbe": "readiness", "livenessProbe": ""}


def test_a_pod_has_the_time_that_a_server_needs_to_drain(
    server: tuple[Workload, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, environment = server
    settings = settings_of(environment, tmp_path, monkeypatch)
    sleep = workload.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = drain_seconds(settings.max_connection_age, settings.shutdown_grace)
    # A margin for a node that is busy.
    assert workload.pod["terminationGracePeriodSeconds"] >= sleep + drain + 5


def test_a_rollout_waits_until_clients_have_found_the_new_pod(server: tuple[Workload, dict[str, str]]) -> None:
    workload, environment = server
    assert workload.spec["minReadySeconds"] >= float(environment["COMMERCE_MAX_CONNECTION_AGE"])
    assert workload.spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_only_what_needs_no_session_goes_through_pgbouncer(rendered: Rendered) -> None:
    for overlay, workload, environment in of_the_service(rendered):
        needs_session = workload.container["args"][0] in {"migrate", "relay"}
        through = environment.get("COMMERCE_PGBOUNCER_MODE", "none") != "none"
        assert through == (overlay == "pgbouncer" and not needs_session), (overlay, workload.name)
        key = PurePosixPath(environment["DATABASE_URL_FILE"]).name
        assert key == ("direct-url" if needs_session else "url"), (overlay, workload.name)


def test_pgbouncer_has_enough_connections_and_gives_up_in_time(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = rendered["pgbouncer"]
    (text,) = (
        found["data"]["pgbouncer.ini"]
        for found in resources
        if found["kind"] == "ConfigMap" and "pgbouncer.ini" in found["data"]
    )
    include, _, section = text.partition("[pgbouncer]")
    assert "%include" in include
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(f"[pgbouncer]{section}")
    bouncer = parser["pgbouncer"]
    settings = settings_of(named(resources, "commerce").environment(resources), tmp_path, monkeypatch)
    (most,) = (found["spec"]["maxReplicas"] for found in resources if found["kind"] == "HorizontalPodAutoscaler")
    of_server = settings.db_pool_size + settings.max_exports + FURTHER_CONNECTIONS
    # One more server while servers are replaced, and one PgBouncer alone while the other is.
    assert bouncer.getint("max_client_conn") >= (most + 1) * of_server
    assert bouncer.getint("default_pool_size") > most * settings.max_exports
    assert bouncer.getfloat("query_wait_timeout") == settings.db_pool_timeout
    assert bouncer["pool_mode"] == "transaction"
    service = next(found for found in resources if found["metadata"]["name"] == "commerce-pgbouncer")
    assert service
    assert bouncer["listen_port"] == str(named(resources, "commerce-pgbouncer").container["ports"][0]["containerPort"])


@pytest.mark.parametrize("overlay", ["production", "mtls"])
def test_the_policy_can_be_used(rendered: Rendered, overlay: str, tmp_path: Path) -> None:
    (policy,) = (
        found["data"]["policy.toml"]
        for found in rendered[overlay]
        if found["kind"] == "ConfigMap" and found["metadata"]["name"] == "commerce-policy"
    )
    (tmp_path / "policy.toml").write_text(policy)
    # It refuses a wrong one.
    PolicyFile(tmp_path / "policy.toml")
