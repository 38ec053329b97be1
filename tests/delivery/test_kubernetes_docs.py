"""The commands and examples of docs/kubernetes.md fit the manifests."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import yaml
from click.testing import CliRunner

from service.cli.main import main
from service.observability.metrics.catalogue import RUNNING_CALLS
from tests.support.certificates import Authority, chain
from tests.support.manifests import (
    CUSTOM_RESOURCES,
    DESCRIPTORS,
    OVERLAYS,
    Resource,
    Workload,
    kubectl,
    parsed,
    render,
    workloads,
)
from tests.support.paths import ROOT

DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
OVERLAY, CERTIFICATE, ADAPTER = (text for language, text in BLOCKS if language == "yaml")

Rendered = Mapping[str, Sequence[Resource]]


def commands() -> Iterator[list[str]]:
    """Yield the words of each command, without what a pipe leads to."""
    for language, text in BLOCKS:
        if language == "sh":
            variables = dict(re.findall(r"^(\w+)=(\S+)$", text, re.MULTILINE))
            for line in text.replace("\\\n", " ").splitlines():
                words = [variables.get(word.removeprefix("$"), word) for word in shlex.split(line)]
                yield words[: words.index("|")] if "|" in words else words


def created(folder: Path) -> Iterator[Resource]:
    """Yield what the commands that create something would create, given the files that they read."""
    certificate = Authority().server()
    for name in ("tls", "rest"):
        (folder / f"{name}.crt").write_bytes(chain(certificate))
        (folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())
    for name in ("ca.crt", "both.crt", "databases.ini", "userlist.txt"):
        (folder / name).write_text("contents")
    for words in commands():
        match words:
            case ["kubectl", "create", *arguments]:
                options = [
                    word for word in arguments if not word.startswith("--dry-run") and word not in {"-o", "yaml"}
                ]
                yield from parsed(kubectl("create", *options, "--dry-run=client", "-o", "yaml", folder=folder))
            case ["commerce", *arguments] if arguments[0] == "keys":
                arguments = [str(folder / word) if word.endswith(".toml") else word for word in arguments]
                ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
                assert ran.exit_code == 0, ran.output


def test_what_pods_mount_is_in_the_overlay_or_made_by_a_command(rendered: Rendered, tmp_path: Path) -> None:
    made: dict[tuple[str, str], set[str]] = {}
    for resource in created(tmp_path):
        assert resource["metadata"]["namespace"] == "commerce"
        made.setdefault((resource["kind"], resource["metadata"]["name"]), set()).update(resource["data"])
    for overlay in OVERLAYS:
        here = {(found["kind"], found["metadata"]["name"]) for found in rendered[overlay]}
        here |= {
            ("Secret", found["spec"]["secretName"]) for found in rendered[overlay] if found["kind"] == "Certificate"
        }
        for workload in workloads(rendered[overlay]):
            for kind, name, keys in sources(workload):
                assert (kind, name) in here or keys <= made.get((kind, name), set()), f"{overlay}: {name}: {keys}"
    assert {name for _, name in made} >= {"commerce-database", "commerce-api-keys", "commerce-pgbouncer"}


def sources(workload: Workload) -> Iterator[tuple[str, str, set[str]]]:
    """Yield the ConfigMaps and Secrets that the pods of a workload mount, and the keys that they need."""
    for source in workload.container.get("envFrom", ()):
        yield "ConfigMap", source["configMapRef"]["name"], set()
    for path, volume in workload.mounts.items():
        if secret := volume.get("secret"):
            files = {item["key"] for item in secret.get("items", ())}
            yield "Secret", secret["secretName"], files or read_from(workload, path)
        if config_map := volume.get("configMap"):
            yield "ConfigMap", config_map["name"], read_from(workload, path)


def read_from(workload: Workload, path: str) -> set[str]:
    """Return the files in a folder that the environment or the arguments of a container name."""
    values = [variable["value"] for variable in workload.container.get("env", ())]
    values += [*workload.container.get("args", ()), *workload.container.get("command", ())]
    return {value.removeprefix(f"{path}/") for value in values if value.startswith(f"{path}/")}


def test_commands_name_folders_files_and_resources_that_exist(rendered: Rendered) -> None:
    names = {
        f"{found['kind'].lower()}/{found['metadata']['name']}" for resources in rendered.values() for found in resources
    }
    named = 0
    for words in commands():
        for option, value in pairwise(words):
            if words[:2] == ["kubectl", "apply"] and option in {"-k", "-f"} and value != "-":
                assert (ROOT / value).exists(), value
        for word in words:
            if re.fullmatch(r"(deployment|job|cronjob)/[\w-]+", word):
                assert word in names, word
                named += 1
            if word.startswith("DESCRIPTORS="):
                assert ROOT / word.removeprefix("DESCRIPTORS=") == ROOT / "deploy" / "kubernetes" / DESCRIPTORS
    assert named > 5


def test_the_first_step_of_a_release_applies_the_migration_and_not_what_needs_it(rendered: Rendered) -> None:
    (selector,) = (words[words.index("--selector") + 1] for words in commands() if "--selector" in words)
    left_out = set(re.fullmatch(r"app\.kubernetes\.io/component notin \((.+)\)", selector)[1].split(", "))  # type: ignore[index]
    for overlay in ("production", "mtls", "pgbouncer", "envoy"):
        first = [
            found
            for found in rendered[overlay]
            if found["metadata"].get("labels", {}).get("app.kubernetes.io/component") not in left_out
        ]
        ours = [workload for workload in workloads(first) if workload.is_of_the_service]
        assert [workload.name for workload in ours] == ["commerce-migrate"]
        assert {"Namespace", "ServiceAccount", "NetworkPolicy", "ConfigMap"} <= {found["kind"] for found in first}


def test_the_rule_of_the_adapter_reads_a_metric_that_exists() -> None:
    (rule,) = yaml.safe_load(ADAPTER)["rules"]
    assert rule["seriesQuery"].startswith(f"{RUNNING_CALLS.documented_name}{{")


def test_an_overlay_of_ones_own_changes_the_image_the_settings_and_the_policy(manifests: Path) -> None:
    folder = manifests / "overlays" / "shop"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(OVERLAY)
    (folder / "policy.toml").write_text("[roles]\n[identities]\n")
    resources = render(folder)
    images = {workload.container["image"] for workload in workloads(resources)}
    assert images == {"registry.shop.example/commerce:0.1.0"}
    data = {
        found["metadata"]["name"].partition("-settings-")[0]: found["data"] for found in resources if "data" in found
    }
    assert data["commerce"]["COMMERCE_LOG_LEVEL"] == "warning"
    assert data["commerce"]["COMMERCE_PORT"] == "50051"
    assert data["commerce-policy"] == {"policy.toml": "[roles]\n[identities]\n"}


def test_the_certificate_of_a_caller_follows_the_schema_and_its_name_is_in_the_policy(rendered: Rendered) -> None:
    (certificate,) = parsed(CERTIFICATE)
    CUSTOM_RESOURCES.validate(certificate)
    (policy,) = (found["data"]["policy.toml"] for found in rendered["mtls"] if "policy.toml" in found.get("data", ()))
    for uri in certificate["spec"]["uris"]:
        assert f'"{uri}"' in policy
