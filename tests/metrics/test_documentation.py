"""docs/metrics.md lists the metrics as the code has them."""

from service.devtools.metrics_tables import tables
from service.observability.metrics.catalogue import FAMILIES
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs/metrics.md"


def test_the_document_has_the_tables_of_the_code() -> None:
    # `python -m service.devtools.metrics_tables` prints them.
    assert tables() in DOCUMENT.read_text()


def test_names_follow_the_conventions() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith(("commerce_", "grpc_server_", "process_", "python_"))
        assert not family.name.endswith("_total")
        assert family.words.endswith(".")
        assert (family.kind == "histogram") == bool(family.bounds)
        # Of a gauge, the sum over workers that replace one another would count one twice.
        assert family.kind == "gauge" or family.merge in {"sum", "max", "each"}
