"""Golden files: what a test makes must be what they contain. `make sql` rewrites them."""

import os
from collections.abc import Mapping
from pathlib import Path

# `make sql` sets it.
REWRITE = "COMMERCE_TEST_REWRITE_SQL" in os.environ


def check(folder: Path, name: str, content: str) -> None:
    """Require that a golden file has this content, or write it."""
    file = folder / f"{name}.sql"
    if REWRITE:
        folder.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")
    assert file.exists(), f"{file.name} does not exist; make sql writes it"
    assert file.read_text(encoding="utf-8") == content, f"{file.name} is out of date; make sql rewrites it"


def check_names(folder: Path, names: Mapping[str, object]) -> None:
    """Require that there is a golden file for each name and no other, or delete the others."""
    for file in sorted(folder.glob("*.sql")) if REWRITE else ():
        if file.stem not in names:
            file.unlink()
    assert {file.stem for file in folder.glob("*.sql")} == set(names)
