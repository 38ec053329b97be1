"""The manifests of deploy/kubernetes are valid, fit together, and ask for no more rights than they need."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.support.manifests import (
    CUSTOM_KINDS,
    CUSTOM_RESOURCES,
    OVERLAYS,
    Resource,
    Workload,
    render,
    workloads,
)

# The oldest version with what the manifests use (`preStop.sleep`), as docs/kubernetes.md says, and the newest known.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

Rendered = Mapping[str, Sequence[Resource]]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_follows_its_schema(rendered: Rendered, version: str) -> None:
    # Most resources are the same in several overlays.
    distinct = {json.dumps(resource, sort_keys=True): resource for found in rendered.values() for resource in found}
    checked = 0
    for resource in distinct.values():
        if resource["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(resource, version, strict=True)
            checked += 1
    assert checked > 20


def test_the_schemas_are_strict(rendered: Rendered) -> None:
    deployment = next(found for found in rendered["production"] if found["kind"] == "Deployment")
    wrong = json.loads(json.dumps(deployment).replace("terminationGracePeriodSeconds", "terminationGracePeriod"))
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_every_custom_resource_follows_its_schema(rendered: Rendered, manifests: Path) -> None:
    found = [*render(manifests / "issuer"), *(resource for one in rendered.values() for resource in one)]
    custom = [resource for resource in found if resource["kind"] in CUSTOM_KINDS]
    assert {resource["kind"] for resource in custom} >= {"Certificate", "ClusterIssuer"}
    for resource in custom:
        assert not list(map(str, CUSTOM_RESOURCES.iter_errors(resource)))
        text = json.dumps(resource)
        for name, wrong in (("secretName", "secret"), ("port", "ports"), ("expr", "expression")):
            text = text.replace(f'"{name}"', f'"{wrong}"')
        misspelled = json.loads(text)
        assert misspelled["spec"] == {"selfSigned": {}} or not CUSTOM_RESOURCES.is_valid(misspelled)


def test_a_name_exists_once(rendered: Rendered) -> None:
    for resources in rendered.values():
        names = [(found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"]) for found in resources]
        assert len(names) == len(set(names))


def test_everything_is_in_one_namespace(rendered: Rendered) -> None:
    for resources in rendered.values():
        (namespace,) = (found["metadata"]["name"] for found in resources if found["kind"] == "Namespace")
        outside = {found["kind"] for found in resources if found["metadata"].get("namespace") != namespace}
        assert outside == {"Namespace"}


def selected(resources: Sequence[Resource], selector: Mapping[str, str]) -> list[Workload]:
    """Return whose pods a selector finds."""
    found = [workload for workload in workloads(resources) if selector.items() <= workload.labels.items()]
    assert found, selector
    return found


def of_kind(resources: Sequence[Resource], *kinds: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the names and the specifications of the resources of some kinds."""
    for resource in resources:
        if resource["kind"] in kinds:
            yield resource["metadata"]["name"], resource.get("spec", {})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods_that_they_are_for(rendered: Rendered, overlay: str) -> None:
    resources = rendered[overlay]
    for name, spec in of_kind(resources, "Deployment", "StatefulSet"):
        (workload,) = selected(resources, spec["selector"]["matchLabels"])
        assert workload.name == name
        for spread in workload.pod.get("topologySpreadConstraints", ()):
            assert selected(resources, spread["labelSelector"]["matchLabels"]) == [workload]
    for name, spec in of_kind(resources, "PodDisruptionBudget"):
        (workload,) = selected(resources, spec["selector"]["matchLabels"])
        assert workload.name == name
    accounts = {name for name, _ in of_kind(resources, "ServiceAccount")}
    assert {workload.pod.get("serviceAccountName") for workload in workloads(resources)} - {None} == accounts


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_network_policies_name_ports_that_pods_have(rendered: Rendered, overlay: str) -> None:
    resources = rendered[overlay]
    for name, spec in of_kind(resources, "Service"):
        for workload in selected(resources, spec["selector"]):
            assert {port["targetPort"] for port in spec["ports"]} <= _ports(workload).keys(), name
    for name, spec in of_kind(resources, "NetworkPolicy"):
        for workload in selected(resources, spec["podSelector"]["matchLabels"]):
            for rule in spec.get("ingress", ()):
                assert {port["port"] for port in rule["ports"]} <= _ports(workload).keys(), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_autoscaler_says_how_many_servers_there_are(rendered: Rendered, overlay: str) -> None:
    scaled = {spec["scaleTargetRef"]["name"] for _, spec in of_kind(rendered[overlay], "HorizontalPodAutoscaler")}
    assert scaled == (set() if overlay == "development" else {"commerce"})
    for workload in workloads(rendered[overlay]):
        if workload.kind == "Deployment":
            assert ("replicas" in workload.spec) == (workload.name not in scaled)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policies_let_each_service_be_reached(rendered: Rendered, overlay: str) -> None:
    """Nothing of the service is reached by a pod that a policy does not name, and all that a pod needs is let out."""
    pods = [pod for pod in workloads(rendered[overlay]) if pod.labels["app.kubernetes.io/name"] == "commerce"]
    policies = [found["spec"] for found in rendered[overlay] if found["kind"] == "NetworkPolicy"]

    def let_out(pod: Workload) -> set[int]:
        return {
            port["port"]
            for policy in policies
            if policy["podSelector"]["matchLabels"].items() <= pod.labels.items()
            for rule in policy.get("egress", ())
            for port in rule["ports"]
        }

    for pod in pods:
        assert {53, 5432} <= let_out(pod)
        assert (4222 in let_out(pod)) == (pod.name == "commerce-relay")
        assert (6432 in let_out(pod)) == (overlay == "pgbouncer")
        # A policy without a rule forbids: without one that selects it, a pod may be reached by all.
        denying = [policy for policy in policies if policy["podSelector"]["matchLabels"].items() <= pod.labels.items()]
        assert any("Ingress" in policy["policyTypes"] for policy in denying)


def _ports(workload: Workload) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in workload.container.get("ports", ())}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_no_more_rights_than_restricted_allows(rendered: Rendered, overlay: str) -> None:
    """The standard "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/), and more."""
    for workload in workloads(rendered[overlay]):
        of_pod, of_container = workload.pod["securityContext"], workload.container["securityContext"]
        assert of_pod["runAsNonRoot"], workload.name
        assert of_pod["runAsUser"] > 0, workload.name
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}, workload.name
        assert of_container["capabilities"] == {"drop": ["ALL"]}, workload.name
        assert of_container["allowPrivilegeEscalation"] is False, workload.name
        assert of_container["readOnlyRootFilesystem"] is True, workload.name
        assert workload.pod["automountServiceAccountToken"] is False, workload.name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & workload.pod.keys(), workload.name
        kinds = {kind for volume in workload.pod.get("volumes", ()) for kind in volume.keys() - {"name"}}
        assert kinds <= {"secret", "configMap", "emptyDir"}, workload.name
        resources: Mapping[str, Any] = workload.container["resources"]
        # Without a limit for the processor: a container that reaches one is stopped for the rest of each 0.1 s.
        assert (resources["requests"].keys(), resources["limits"].keys()) == ({"cpu", "memory"}, {"memory"})


def test_no_password_is_in_a_manifest_but_those_of_development(rendered: Rendered) -> None:
    for overlay, resources in rendered.items():
        made = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "Secret"}
        assert bool(made) == (overlay == "development")
