from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.report import BEGIN, DOCUMENT, END, UNKNOWN, judged, verdicts_table, write_report
from benchmarks.results import ClientCost, Machine, Measurement, Results, Spread


def test_a_verdict_compares_the_medians_with_the_target() -> None:
    results = found(measured(60), measured(100, server="bare"), measured(250, server="guide"))
    verdicts = {one.peer: (one.ratio, one.word) for one in judged(results) if one.figure.startswith("CPU")}
    assert verdicts == {
        "bare": (0.6, "met"),
        "guide": (0.24, "missed"),
        "fastapi": (None, UNKNOWN),
        "node": (None, UNKNOWN),
    }


def test_cpu_targets_use_only_the_main_shape_and_latency_targets_only_single_calls() -> None:
    others = [measured(1, in_flight=1, connections=1, p50=5), measured(1, rate=500), measured(1, in_flight=16)]
    alone = measured(1, server="bare", in_flight=1, connections=1, p50=4)
    results = found(*others, measured(200), measured(100, server="bare"), alone)
    verdicts = [(one.ours, one.theirs, one.word) for one in judged(results) if one.peer == "bare"]
    assert verdicts == [(200, 100, "missed"), (5, 4, "met")]


def test_workloads_that_were_not_measured_have_no_verdict() -> None:
    results = found(measured(60), measured(100, server="bare"))
    assert {one.workload for one in judged(results)} == {"GetUser"}


def test_a_missing_peer_is_a_dash_in_the_table() -> None:
    table = verdicts_table(found(measured(60), measured(100, server="bare")))
    assert "| GetUser | CPU, µs | bare | 60 | 100 | 0.60 | 0.60 | met |" in table
    assert f"| GetUser | CPU, µs | node | 60 | {UNKNOWN} | {UNKNOWN} | 2.00 | {UNKNOWN} |" in table


def test_a_figure_is_the_median_minimum_and_maximum_of_its_rounds() -> None:
    assert Spread.of([5, 1, 9, 2, 3]) == Spread(median=3, min=1, max=9, values=(5, 1, 9, 2, 3))


def test_the_report_changes_only_the_generated_part_of_the_document(tmp_path: Path) -> None:
    write_report(found(measured(60), measured(100, server="bare")), tmp_path)
    written, document = (tmp_path / "performance.md").read_text(), DOCUMENT.read_text()
    assert written.split(BEGIN)[0] == document.split(BEGIN)[0]
    assert written.split(END)[1] == document.split(END)[1]


def test_the_report_shows_measured_and_unmeasured_workloads(tmp_path: Path) -> None:
    slow = measured(300, server="bare", rate=500, rpc_per_second=400)
    results = found(measured(61.4), measured(1234, server="bare"), measured(1, rate=500), slow)
    write_report(results.model_copy(update={"skipped": {"node": "node is not installed"}}), tmp_path)
    written = (tmp_path / "performance.md").read_text()
    assert "| GetUser | 61 | 1,234 |" in written
    assert "node was not measured: node is not installed." in written
    assert "| GetUser, 500/s | 2.00 / 3.00 | 2.00 / 3.00 (behind) |" in written


def test_the_json_holds_everything_that_the_report_needs(tmp_path: Path) -> None:
    write_report(found(measured(60), measured(100, server="bare", rate=500)), tmp_path)
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    write_report(Results.model_validate_json(before["performance.json"]), tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_what_the_python_clients_add_is_compared_with_its_limit(tmp_path: Path) -> None:
    results = found(measured(60))
    write_report(results, tmp_path)
    assert "Python clients add" not in (tmp_path / "performance.md").read_text().partition(BEGIN)[2]
    costs = [("Client", 35.0, 60.0), ("AsyncClient", 90.0, 80.0)]
    results.clients = [
        ClientCost(
            client=name,
            stub_us=Spread.of([100]),
            client_us=Spread.of([100 + us]),
            added_us=Spread.of([us]),
            most_us=most,
        )
        for name, us, most in costs
    ]
    write_report(results, tmp_path)
    written = (tmp_path / "performance.md").read_text()
    assert "| Client | 100 | 135 | 35 | 60 | met |" in written
    assert "| AsyncClient | 100 | 190 | 90 | 80 | missed |" in written


@pytest.mark.parametrize("workloads", [["GetUser"], ["GetUser", "Mixed"]])
def test_the_plot_has_a_bar_for_each_workload_and_server(tmp_path: Path, workloads: list[str]) -> None:
    servers = ("commerce", "bare")
    write_report(
        found(*(measured(60, workload=name, server=server) for name in workloads for server in servers)), tmp_path
    )
    svg = ET.parse(tmp_path / "performance.svg")  # noqa: S314 - our own file
    bars = list(svg.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == len(workloads) * len(servers)


def measured(cpu_us: float, *, p50: float = 2, rpc_per_second: float = 1000, **fields: Any) -> Measurement:
    names = {"workload": "GetUser", "server": "commerce", "in_flight": 64, "connections": 8, "rate": None}
    return Measurement(
        **{**names, **fields},
        rounds=5,
        calls=100,
        # Outliers must not affect the verdict.
        cpu_us=Spread(median=cpu_us, min=0, max=9 * cpu_us),
        postgres_cpu_us=None,
        rpc_per_second=Spread.of([rpc_per_second]),
        p50_ms=Spread(median=p50, min=0, max=9 * p50),
        p99_ms=Spread.of([3]),
        resident_mb=100,
    )


def found(*measurements: Measurement) -> Results:
    return Results(
        finished=datetime(2026, 1, 2, tzinfo=UTC),
        command="make bench",
        machine=Machine(processor="A processor", cores=2, memory_gb=4, kernel="Linux 6"),
        versions={"Python": "3.11"},
        users=1000,
        orders=2000,
        servers={one.server: "a server" for one in measurements},
        skipped={},
        measurements=list(measurements),
    )
