"""Envoy on Kubernetes has the configuration of deploy/envoy, adapted to the cluster."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import Authority, chain
from tests.support.envoys import CONFIG, PROGRAM
from tests.support.manifests import DESCRIPTORS, Resource, named

Rendered = Mapping[str, Sequence[Resource]]

# What the comments of deploy/envoy/envoy.yaml say is to be changed.
CHANGES = {
    "address: 127.0.0.1, port_value: 8080": "address: 0.0.0.0, port_value: 8443",
    "address: 127.0.0.1, port_value: 50051": (
        "address: commerce-headless.commerce.svc.cluster.local, port_value: 50051"
    ),
    "domains: [localhost, 127.0.0.1]": (
        "domains: [commerce-envoy, commerce-envoy.commerce, commerce-envoy.commerce.svc,"
        " commerce-envoy.commerce.svc.cluster.local, rest.example.com]"
    ),
    "/etc/envoy/tls.crt": "/etc/envoy-tls/tls.crt",
    "/etc/envoy/tls.key": "/etc/envoy-tls/tls.key",
    "/etc/envoy/service-ca.crt": "/etc/envoy-ca/ca.crt",
}


@pytest.fixture(scope="module")
def bootstrap(rendered: Rendered) -> str:
    """The configuration in the ConfigMap."""
    (text,) = (
        found["data"]["envoy.yaml"]
        for found in rendered["envoy"]
        if found["kind"] == "ConfigMap" and "envoy.yaml" in found.get("data", {})
    )
    return str(text)


def test_its_configuration_is_that_of_deploy_envoy_with_other_addresses_names_and_files(bootstrap: str) -> None:
    text = CONFIG.read_text().replace("#tls-in ", "").replace("#tls-out ", "")
    for old, new in CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    assert yaml.safe_load(bootstrap) == yaml.safe_load(text.replace("commerce.example.com", "commerce.commerce.svc"))


def test_it_finds_the_servers_and_its_port_and_files_are_those_of_its_pods(rendered: Rendered, bootstrap: str) -> None:
    workload = named(rendered["envoy"], "commerce-envoy")
    (listener,) = yaml.safe_load(bootstrap)["static_resources"]["listeners"]
    (port,) = workload.container["ports"]
    assert listener["address"]["socket_address"]["port_value"] == port["containerPort"]
    assert {"/etc/envoy", "/etc/envoy-tls", "/etc/envoy-ca"} <= workload.mounts.keys()
    services = {found["metadata"]["name"]: found for found in rendered["envoy"] if found["kind"] == "Service"}
    assert services["commerce-headless"]["spec"]["clusterIP"] == "None"
    assert workload.container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert "exact: /healthz" in bootstrap


def test_the_descriptors_fit_into_a_config_map(rendered: Rendered, manifests: Path) -> None:
    assert any("commerce.binpb" in found.get("binaryData", {}) for found in rendered["envoy"])
    # Kubernetes allows 1 MiB, encoded in base64.
    assert (manifests / DESCRIPTORS).stat().st_size * 4 / 3 < 2**20 - 65536


def test_envoy_accepts_it(bootstrap: str, manifests: Path, tmp_path: Path) -> None:
    authority = Authority()
    certificate = authority.server()
    files: dict[str, bytes] = {
        "/etc/envoy-tls/tls.crt": chain(certificate),
        "/etc/envoy-tls/tls.key": certificate.private_key_pem.bytes(),
        "/etc/envoy-ca/ca.crt": authority.pem,
        "/etc/envoy/commerce.binpb": (manifests / DESCRIPTORS).read_bytes(),
    }
    text = bootstrap
    for path, contents in files.items():
        file = tmp_path / Path(path).name
        file.write_bytes(contents)
        assert path in text
        text = text.replace(path, str(file))
    (tmp_path / "envoy.yaml").write_text(text)
    command: list[Any] = [PROGRAM, "--mode", "validate", "-c", tmp_path / "envoy.yaml", "--log-level", "error"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
