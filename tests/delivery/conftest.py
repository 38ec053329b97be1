"""The manifests of deploy/kubernetes, rendered once for all tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.manifests import OVERLAYS, Resource, copy_manifests, render


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/kubernetes with all files that its overlays need."""
    return copy_manifests(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="session")
def rendered(manifests: Path) -> Mapping[str, Sequence[Resource]]:
    """The resources of each overlay."""
    return {name: render(manifests / "overlays" / name) for name in OVERLAYS}
