"""Each alert fires when its cause is there, and all queries find what they ask for.

The causes are made on real servers, and a real Prometheus reads their pages and evaluates the rules. Its windows are as
long as in production, but contain only the few seconds of its life. An alert fires here as soon as its condition is
true: `for`, which makes it wait for minutes, is left out.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import pytest
from commerce.common.v1.error_reason_pb2 import ErrorReason

from tests.support.alert_causes import (
    CUT,
    FAILING,
    FULL,
    HEALTHY,
    RELAY,
    SLOW,
    STOPPED,
    UNREACHABLE,
    WORKERS,
    Causes,
    running_causes,
)
from tests.support.metrics_pages import Page
from tests.support.panels import Query, dashboards, panels, queries
from tests.support.prometheus import MISSING, PROMETHEUS, RULE_FILES, Prometheus, alerts, running_prometheus
from tests.support.promql import OF_PROMETHEUS, TARGET_LABELS, result_labels, selectors, without_variables

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

T = TypeVar("T")

# For each alert, the job for which it fires.
CAUSES = {
    "CommerceAvailabilityBurnsFast": FAILING,
    "CommerceAvailabilityBurnsSlowly": FAILING,
    "CommerceCallsQueue": FULL,
    "CommerceCallsRefused": FULL,
    "CommerceCertificateExpires": CUT,
    "CommerceCertificateExpiresSoon": CUT,
    "CommerceEventLoopBlocked": FAILING,
    "CommerceEventsDelayed": SLOW,
    "CommerceGcLate": FAILING,
    "CommerceGcNeverRan": FULL,
    "CommerceLatencyBurnsFast": SLOW,
    "CommerceLatencyBurnsSlowly": SLOW,
    "CommerceLedgerDiffers": FAILING,
    "CommerceLedgerUnchecked": FULL,
    "CommerceMetricsUnreachable": UNREACHABLE,
    "CommerceNoServerReady": CUT,
    "CommercePoolExhausted": FULL,
    "CommerceRelayDelayed": RELAY,
    "CommerceRelayStopped": STOPPED,
    "CommerceReloadFailing": CUT,
    "CommerceReplicaNotUsed": CUT,
    "CommerceServerNotReady": CUT,
    "CommerceWorkerStuck": WORKERS,
}
# What may also be true for a server that is well, on a machine that is busy.
OF_TIME = {"CommerceLatencyBurnsFast", "CommerceLatencyBurnsSlowly", "CommerceEventLoopBlocked"}
# A worker reports each second. Its report would be as old as the rule says only after longer than a test may take.
SHORTENED = {"(commerce_worker_report_age_seconds) > 30": "(commerce_worker_report_age_seconds) > 3"}
# The values that a label can have, of those of which a test makes only some.
KNOWN = {
    "grpc_code": {code.name for code in grpc.StatusCode},
    "reason": {name.removeprefix("ERROR_REASON_") for name in list(ErrorReason.keys())},
    "slo": {"availability", "latency"},
    "alertstate": {"firing"},
}


@pytest.fixture(scope="module")
async def causes(
    postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Causes]:
    async with running_causes(postgres_url, template_url, tmp_path_factory.mktemp("causes")) as causes:
        going_on = asyncio.create_task(causes.go_on())
        yield causes
        going_on.cancel()
        with suppress(asyncio.CancelledError):
            # Unless it has failed.
            await going_on


@pytest.fixture(scope="module")
async def prometheus(causes: Causes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    if PROMETHEUS is None:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("prometheus")
    async with running_prometheus(folder, causes.ports, impatient_rules(folder), seconds=1) as prometheus:
        yield prometheus


def impatient_rules(folder: Path) -> list[Path]:
    """Write the rules without the time for which a condition must be true; returns the files."""
    shortened, files = set(), []
    for path in RULE_FILES:
        text = re.sub(r"^ +for: .+\n", "", path.read_text(), flags=re.MULTILINE)
        for long, short in SHORTENED.items():
            if long in text:
                shortened.add(long)
                text = text.replace(long, short)
        files.append(folder / path.name)
        files[-1].write_text(text)
    assert shortened == SHORTENED.keys()
    return files


async def until(condition: Callable[[], Awaitable[T]], seconds: float = 30) -> T:
    """Return what a condition that should be empty returns, as soon as it is, or after a time."""
    give_up = time.monotonic() + seconds
    while (found := await condition()) and time.monotonic() < give_up:  # noqa: ASYNC110 - other processes change it
        await asyncio.sleep(0.2)
    return found


def test_every_alert_has_a_cause_here() -> None:
    assert CAUSES.keys() == alerts().keys()


@pytest.mark.parametrize(("alert", "job"), CAUSES.items(), ids=CAUSES)
async def test_an_alert_fires_when_its_cause_is_there(prometheus: Prometheus, alert: str, job: str) -> None:
    fired: list[dict[str, Any]] = []

    async def missing() -> list[str]:
        fired[:] = [
            one
            for one in await prometheus.alerts()
            if (one["labels"]["alertname"], one["labels"].get("job"), one["state"]) == (alert, job, "firing")
        ]
        return [] if fired else [alert]

    assert await until(missing) == []
    rule = alerts()[alert]
    for one in fired:
        assert one["labels"]["severity"] == rule["labels"]["severity"]
        annotations = one["annotations"]
        assert (annotations["summary"], annotations["runbook_url"]) == (
            rule["annotations"]["summary"],
            rule["annotations"]["runbook_url"],
        )
        # Prometheus writes the error of a template into the text.
        assert not re.search(r"error|<no value>|{{|NaN|  ", annotations["description"]), annotations["description"]


async def test_no_alert_fires_for_a_server_that_is_well(prometheus: Prometheus) -> None:
    async def unevaluated() -> list[str]:
        return [rule["name"] for rule in await prometheus.unhealthy_rules()]

    assert await until(unevaluated) == []
    firing = {one["labels"]["alertname"] for one in await prometheus.alerts() if one["labels"].get("job") == HEALTHY}
    assert firing <= OF_TIME


async def test_an_error_budget_is_used_up_by_failures_and_not_by_what_callers_see_to(prometheus: Prometheus) -> None:
    ratios: dict[str, float] = {}

    async def missing() -> set[str]:
        found = await prometheus.query('commerce:slo_errors:ratio_rate30d{slo="availability"}')
        ratios.update({series["metric"]["job"]: float(series["value"][1]) for series in found})
        return {HEALTHY, FAILING} - ratios.keys()

    assert await until(missing) == set()
    assert ratios[HEALTHY] == 0
    assert 0.2 < ratios[FAILING] < 1


@pytest.mark.parametrize("title", dashboards())
async def test_every_panel_shows_something(prometheus: Prometheus, title: str) -> None:
    async def empty() -> list[str]:
        return [panel["title"] for panel in panels(dashboards()[title]) if not await shows(panel)]

    async def shows(panel: Any) -> bool:
        found = [await prometheus.query(without_variables(target["expr"])) for target in panel["targets"]]
        # Those that leave out series without a value may have none.
        return any(found) or all(re.search(r"[<>] (0|Inf)\)*$", target["expr"]) for target in panel["targets"])

    assert await until(empty) == []


async def test_every_metric_label_and_value_of_a_query_is_on_a_page(causes: Causes) -> None:
    async def missing() -> list[str]:
        samples = by_name((await causes.pages()).values())
        return [problem for query in queries() for problem in problems_of(query, samples)]

    assert await until(missing) == []


def by_name(pages: Iterable[Page]) -> Mapping[str, Sequence["Sample"]]:
    samples = defaultdict(list)
    for page in pages:
        for sample in page.samples:
            samples[sample.name].append(sample)
    return samples


def problems_of(query: Query, samples_by_name: Mapping[str, Sequence["Sample"]]) -> list[str]:
    """Return what a query asks for and no page has."""
    text = without_variables(query.text)
    found = []
    for selector in selectors(text):
        matchers = [matcher for matcher in selector.matchers.matchers if matcher.name not in TARGET_LABELS]
        if selector.name in OF_PROMETHEUS or ":" in selector.name:
            values: dict[str, set[str]] = {}
        else:
            samples = samples_by_name.get(selector.name, ())
            if not samples:
                found.append(f"{query.where}: {selector.name}")
            values = {matcher.name: {sample.labels.get(matcher.name, "") for sample in samples} for matcher in matchers}
        for matcher in matchers:
            known = values.get(matcher.name, set()) | KNOWN.get(matcher.name, set())
            if matcher.name == "alertname":
                known = {*alerts()}
            # A regular expression of words: each is checked by itself.
            words = matcher.value.split("|") if re.fullmatch(r"[\w|]+", matcher.value) else [matcher.value]
            found += [
                f"{query.where}: {matcher.name}={word}"
                for word in words
                if not any(re.fullmatch(word, value) for value in known)
            ]
    shown = query.labels - result_labels(text) - {"worker"}
    return found + [f"{query.where}: {label} is not a label of the result" for label in shown]


def test_a_query_for_what_does_not_exist_is_noticed() -> None:
    page = by_name([Page("# TYPE commerce_ready gauge\ncommerce_ready 1\n# EOF\n", "application/openmetrics-text")])
    assert problems_of(Query("x", "commerce_ready"), page) == []
    assert problems_of(Query("x", "commerce_draining"), page) == ["x: commerce_draining"]
    assert problems_of(Query("x", 'commerce_ready{worker="7"}'), page) == ["x: worker=7"]
    assert problems_of(Query("x", "sum by (job) (commerce_ready)", frozenset({"pod"})), page)
    with pytest.raises(AssertionError, match="grpc_code"):
        problems_of(Query("x", "sum by (grpc_code) (commerce_ready)"), page)
    with pytest.raises(KeyError):
        problems_of(Query("x", "sum(commerce_missing)"), page)
    with pytest.raises(ValueError, match="parenthesis"):
        problems_of(Query("x", "sum(commerce_ready"), page)
