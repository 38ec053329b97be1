"""Other major versions of PostgreSQL than the embedded one, if they are installed."""

from pathlib import Path

import pytest

from service.devtools.postgres_programs import find_bin_dir, major_version
from tests.support.paths import ROOT

# Where `make older-postgresql` installs them, and where Debian does.
_FOLDERS = (ROOT / ".bench" / "postgresql", Path("/usr/lib/postgresql"))


def programs_of(major: int) -> Path:
    """Return the folder of the programs of a major version; skips the test if it is not installed."""
    if major_version(find_bin_dir()) == major:
        return find_bin_dir()
    for folder in _FOLDERS:
        if (folder / str(major) / "bin" / "postgres").exists():
            return folder / str(major) / "bin"
    pytest.skip(f"PostgreSQL {major} is not installed: make older-postgresql")
