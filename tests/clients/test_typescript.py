"""The TypeScript client keeps its promises, against real servers."""

import os
from pathlib import Path

from tests.clients.conftest import run


def test_it_passes_its_own_tests(typescript: Path, environment: dict[str, str]) -> None:
    print(run("npm", "test", folder=typescript, environment=environment))
