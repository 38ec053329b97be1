"""Documents that repeat what the code says agree with it."""

import re
from pathlib import Path

from commerce.common.v1.error_reason_pb2 import ErrorReason

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_names_only_reasons_that_exist() -> None:
    rows = re.findall(r"^\| [A-Z_]+ \| (.+?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    assert named
    assert {f"ERROR_REASON_{reason}" for reason in named} <= set(ErrorReason.keys())


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "client" / "README.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
