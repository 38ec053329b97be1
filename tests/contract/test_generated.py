"""The committed stubs are those that the protos give."""

import filecmp
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

CLIENT = ROOT / "client"


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CLIENT / "generate.py", tmp_path], check=True)
    for package in ("buf", "commerce"):
        generated = {path.relative_to(tmp_path) for path in (tmp_path / package).rglob("*") if path.is_file()}
        committed = {path.relative_to(CLIENT) for path in (CLIENT / package).rglob("*") if path.is_file()}
        committed = {path for path in committed if "__pycache__" not in path.parts}
        assert generated == committed
        assert len(generated) > 2
        _, different, unreadable = filecmp.cmpfiles(tmp_path, CLIENT, sorted(map(str, generated)), shallow=False)
        assert (different, unreadable) == ([], [])


def test_generated_files_say_so() -> None:
    files = [path for package in ("buf", "commerce") for path in (CLIENT / package).rglob("*.py*")]
    sources = [path for path in files if path.suffix in {".py", ".pyi"}]
    assert len(sources) > 10
    assert [path for path in sources if "generated" not in path.read_text()[:300].lower()] == []


def test_the_client_needs_nothing_of_the_service(tmp_path: Path) -> None:
    """Importing every module of the client loads only what its package asks for."""
    modules = [
        ".".join(path.relative_to(CLIENT).with_suffix("").parts) for path in (CLIENT / "commerce").rglob("*_pb2*.py")
    ]
    script = "import sys\n" + "".join(f"import {module}\n" for module in modules)
    script += "print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert not {"service", "sqlalchemy", "asyncpg", "pydantic", "alembic"} & set(loaded.stdout.split())
    assert importlib.util.find_spec("sqlalchemy") is not None, "or the line above could not fail"
