"""The play-throughs of docs/operations: short in `make test`, with more data and more versions in `make recoveries`."""

from pathlib import Path

import pytest

from tests.recoveries.plan import FULL
from tests.support.pages import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path / "shell", copies=not FULL)
