"""The manifests of deploy/kubernetes, as `kubectl kustomize` renders them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from clients.descriptors import compile_protos
from tests.support.paths import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("development", "production", "mtls", "pgbouncer", "envoy")
# The file that `make descriptors` writes for Envoy; the repository does not have it.
DESCRIPTORS = Path("components", "envoy", "commerce.binpb")
# The name of the image of the service in the base; overlays replace it.
IMAGE = "commerce"

# The resources that Kubernetes does not have itself, and what they may contain.
CUSTOM_KINDS = {"Certificate", "ClusterIssuer", "PrometheusRule", "ServiceMonitor"}
CUSTOM_RESOURCES = Draft202012Validator(
    json.loads((ROOT / "tests" / "delivery" / "custom_resources.schema.json").read_text())
)

Resource = Mapping[str, Any]


def render(folder: Path) -> list[Resource]:
    """Return the resources that `kubectl apply -k` would send to a cluster."""
    return parsed(kubectl("kustomize", str(folder)))


def kubectl(*arguments: str, folder: Path = ROOT) -> str:
    """Run kubectl in a folder, and return what it prints."""
    command = [str(Path(sys.executable).parent / "kubectl"), *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def parsed(text: str) -> list[Resource]:
    """Return the resources of a YAML file."""
    return [resource for resource in yaml.safe_load_all(text) if resource]


def copy_manifests(folder: Path) -> Path:
    """Copy deploy/kubernetes, and what it refers to, into a folder, and write what `make descriptors` writes.

    Returns:
        the copy of deploy/kubernetes.
    """
    copied = folder / "kubernetes"
    for path in KUBERNETES.rglob("*"):
        if path.is_file() and path.name != DESCRIPTORS.name:
            target = copied / path.relative_to(KUBERNETES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    shutil.copytree(ROOT / "deploy" / "observability", folder / "observability")
    (copied / DESCRIPTORS).write_bytes(compile_protos())
    return copied


@dataclass(frozen=True)
class Workload:
    """A resource that makes pods.

    Attributes:
        kind: such as `Deployment`.
        name: its name.
        spec: its specification.
        labels: of its pods.
        pod: the specification of its pods.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    pod: Mapping[str, Any]

    @property
    def container(self) -> Mapping[str, Any]:
        """The only container of its pods."""
        (container,) = self.pod["containers"]
        found: Mapping[str, Any] = container
        return found

    @property
    def mounts(self) -> dict[str, Mapping[str, Any]]:
        """The volumes of the container by the paths at which they are mounted."""
        volumes = {volume["name"]: volume for volume in self.pod.get("volumes", ())}
        # Each pod of a StatefulSet has a volume of its own.
        volumes |= {claim["metadata"]["name"]: claim for claim in self.spec.get("volumeClaimTemplates", ())}
        return {mount["mountPath"]: volumes[mount["name"]] for mount in self.container["volumeMounts"]}

    def environment(self, resources: Iterable[Resource]) -> dict[str, str]:
        """Return the environment variables of the container; those of ConfigMaps are among the resources."""
        maps = {resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == "ConfigMap"}
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            found |= maps[source["configMapRef"]["name"]]["data"]
        return found | {variable["name"]: variable["value"] for variable in self.container.get("env", ())}

    @property
    def is_of_the_service(self) -> bool:
        """Whether its image is that of the service."""
        image: str = self.container["image"]
        return image.rpartition("/")[2].partition(":")[0] == IMAGE


def workloads(resources: Iterable[Resource]) -> Iterator[Workload]:
    """Yield the resources that make pods."""
    for resource in resources:
        spec = resource.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            labels = template["metadata"]["labels"]
            yield Workload(resource["kind"], resource["metadata"]["name"], spec, labels, template["spec"])


def named(resources: Iterable[Resource], name: str) -> Workload:
    """Return the resource with this name that makes pods."""
    (found,) = (workload for workload in workloads(resources) if workload.name == name)
    return found
