"""Documents agree with the code that they describe."""

import re
from pathlib import Path

from commerce.common.v1.error_reason_pb2 import ErrorReason

from tests.support.paths import ROOT


def test_the_page_about_errors_names_only_reasons_that_exist() -> None:
    rows = re.findall(r"^\| [A-Z_]+ \| (.+?) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    named = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    assert named
    assert {f"ERROR_REASON_{reason}" for reason in named} <= set(ErrorReason.keys())


def test_links_between_documents_lead_somewhere() -> None:
    readmes = [
        ROOT / folder / "README.md"
        for folder in ("client", "clients/typescript", "deploy/envoy", "deploy/kubernetes", "deploy/observability")
    ]
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *readmes):
        for target, heading in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", document.read_text()):
            path = document.parent / target if target else document
            assert path.exists(), f"{document.name}: {target}"
            assert not heading or heading in headings(path), f"{document.name}: {target}#{heading}"


def headings(document: Path) -> set[str]:
    """Return the fragments by which links name the headings of a document, as GitHub makes them."""
    names = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


def test_files_that_documents_name_exist() -> None:
    # The glossary also says what files were called before.
    documents = [path for path in ROOT.glob("docs/**/*.md") if path.stem != "glossary"]
    for document in (*documents, ROOT / "SECURITY.md"):
        for name in re.findall(r"`((?:\w+/)+[\w.]*)`", document.read_text()):
            # What make writes, which may be there or not.
            if name.startswith("dist/"):
                continue
            # Documents may leave out `service/`. What begins with neither is no file of ours.
            base = next((base for base in (ROOT, ROOT / "service") if (base / name.split("/")[0]).is_dir()), None)
            assert base is None or (base / name).exists(), f"{document.name}: {name}"
