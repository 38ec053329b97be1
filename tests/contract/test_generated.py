"""The committed stubs are those that the protos give."""

import filecmp
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.paths import ROOT

CLIENT = ROOT / "client"
# The part of the package that is written by hand, with a generated part in it.
WRITTEN = CLIENT / "commerce" / "client"


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CLIENT / "generate.py", tmp_path], check=True)
    generated = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    committed = {path.relative_to(CLIENT) for path in committed_files("*")}
    assert generated == committed
    assert len(generated) > 10
    _, different, unreadable = filecmp.cmpfiles(tmp_path, CLIENT, sorted(map(str, generated)), shallow=False)
    assert (different, unreadable) == ([], [])


def committed_files(pattern: str) -> list[Path]:
    """Return the committed files that are generated."""
    files = [
        path for path in (CLIENT / "commerce").rglob(pattern) if path.is_file() and "__pycache__" not in path.parts
    ]
    return [path for path in files if WRITTEN not in path.parents or WRITTEN / "generated" in path.parents]


def test_generated_files_say_so() -> None:
    sources = [path for path in committed_files("*.py*") if path.suffix in {".py", ".pyi"}]
    assert len(sources) > 10
    assert [path for path in sources if "generated" not in path.read_text()[:300].lower()] == []


def test_the_installed_client_is_one_package_and_imports_no_rules(tmp_path: Path) -> None:
    """The wheel has the top-level package `commerce` and no other, and each of its modules can be imported.

    A package `buf` would collide with one that a caller has generated; the interpreter below refuses to import it.
    """
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True, cwd=CLIENT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"commerce"}
    modules = [name.removesuffix(".py").replace("/", ".") for name in names if name.endswith(("_pb2.py", "_grpc.py"))]
    committed = [path for path in (CLIENT / "commerce").rglob("*_pb2*.py") if "__pycache__" not in path.parts]
    assert len(modules) == len(committed)
    loaded = imported(modules, wheel, tmp_path)
    assert "commerce" in loaded
    # Only what its package asks for.
    assert not {"service", "sqlalchemy", "asyncpg", "pydantic", "alembic", "protovalidate", "buf"} & loaded
    assert importlib.util.find_spec("sqlalchemy") is not None, "or the line above could not fail"


def imported(modules: list[str], wheel: Path, folder: Path) -> set[str]:
    """Import modules from a wheel where `buf` cannot be imported, and return the top-level packages loaded."""
    script = [
        "import sys",
        "sys.modules['buf'] = None",
        *(f"import {module}" for module in modules),
        "import commerce",
        f"assert commerce.__file__.startswith({str(wheel)!r}), commerce.__file__",
        "print(*{name.partition('.')[0] for name, module in sys.modules.items() if module})",
    ]
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-c", "\n".join(script)]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environment)
    return set(loaded.stdout.split())
