"""The bill of materials that `make sbom` writes."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def made(path: Path) -> bytes:
    """Return the bill of materials; the command fails if it does not follow the schema of CycloneDX."""
    command = ["make", "--no-print-directory", "--silent", "sbom", f"SBOM={path}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return path.read_bytes()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bill of materials, in a folder that did not exist."""
    return made(tmp_path_factory.mktemp("sbom") / "new" / "sbom.cdx.json")


def test_it_names_every_package_of_the_image_with_its_hashes(first: bytes) -> None:
    bill = json.loads(first)
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "commerce-service")
    locked: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / "run.txt").read_text().splitlines():
        if found := re.match(r"([a-z0-9-]+)==(\S+)", line):
            locked[f"pkg:pypi/{found[1]}@{found[2]}"] = hashes = set()
        elif found := re.search(r"--hash=sha256:(\w+)", line):
            hashes.add(found[1])
    assert len(locked) > 20
    components = {
        component["purl"]: {
            hashed["content"] for reference in component["externalReferences"] for hashed in reference.get("hashes", ())
        }
        for component in bill["components"]
    }
    assert components == locked


def test_it_is_the_same_each_time(first: bytes, tmp_path: Path) -> None:
    assert made(tmp_path / "other.json") == first
