"""What a query of PromQL asks for: the metrics, their labels, and the labels of its result."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import promql_parser as promql

from service.observability.metrics.catalogue import FAMILIES
from tests.support.prometheus import rules

# Prometheus, or the operator's ServiceMonitor, adds these to every series of a target.
TARGET_LABELS = {"namespace", "job", "instance", "pod"}
# With `COMMERCE_WORKERS`, some metrics have a value for each worker.
WORKER = "worker"
# Prometheus makes these itself.
OF_PROMETHEUS = {"up": TARGET_LABELS, "ALERTS": {"alertname", "alertstate", "severity", *TARGET_LABELS}}
# What Grafana puts in the place of its variables.
_VARIABLES = {
    "$__rate_interval": "1m",
    "$namespace": ".*",
    "$job": ".+",
    "$instance": ".+",
    "$method": ".*",
    "${datasource}": "",
}


def without_variables(query: str) -> str:
    """Return a query of a panel as Grafana sends it if everything is chosen."""
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def selectors(query: str) -> Iterator[Any]:
    """Yield the selectors of series in a query; raises ValueError for a query that cannot be parsed."""
    yield from (found for found in _expressions(promql.parse(query)) if isinstance(found, promql.VectorSelector))


def result_labels(query: str) -> set[str]:
    """Return the labels of the result of a query; asserts that the series that it aggregates or joins have them."""
    return _labels(promql.parse(query))


def labels_of(metric: str) -> set[str]:
    """Return the labels of a metric of the service, of a rule or of Prometheus itself; `KeyError` for others."""
    if metric in OF_PROMETHEUS:
        return OF_PROMETHEUS[metric]
    if metric in _recorded():
        return _recorded()[metric]()
    for suffix, further in (("_total", set()), ("_bucket", {"le"}), ("_sum", set()), ("_count", set()), ("", set())):
        family = FAMILIES.get(metric.removesuffix(suffix))
        if family and metric.endswith(suffix) and _has_suffix(family.kind, suffix):
            each = {WORKER} if family.merge == "each" else set()
            return {*family.labels, *further, *each, *TARGET_LABELS}
    raise KeyError(metric)


def _has_suffix(kind: str, suffix: str) -> bool:
    return suffix in {"counter": {"_total"}, "histogram": {"_bucket", "_sum", "_count"}, "gauge": {""}}[kind]


@cache
def _recorded() -> Mapping[str, Callable[[], set[str]]]:
    def labels(rule: Mapping[str, Any]) -> Callable[[], set[str]]:
        return lambda: result_labels(rule["expr"]) | rule.get("labels", {}).keys()

    return {rule["record"]: labels(rule) for rule in rules() if "record" in rule}


def _children(expression: Any) -> list[Any]:
    match expression:
        case promql.BinaryExpr():
            return [expression.lhs, expression.rhs]
        case promql.Call():
            return [*expression.args]
        case promql.MatrixSelector():
            return [expression.vector_selector]
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return [expression.expr]
        case _:
            return []


def _expressions(expression: Any) -> Iterator[Any]:
    yield expression
    for child in _children(expression):
        yield from _expressions(child)


def _labels(expression: Any) -> set[str]:
    match expression:
        case promql.VectorSelector():
            return labels_of(expression.name or "")
        case promql.AggregateExpr():
            return _aggregated(expression)
        case promql.BinaryExpr():
            return _joined(expression)
        case promql.Call():
            found = set().union(*map(_labels, expression.args))
            if expression.func.name == "histogram_quantile":
                assert "le" in found, expression.prettify()
            return found - {"le"} if expression.func.name == "histogram_quantile" else found
        case _:
            return set().union(*map(_labels, _children(expression)))


def _aggregated(expression: Any) -> set[str]:
    found, modifier = _labels(expression.expr), expression.modifier
    if str(expression.op) in {"topk", "bottomk"}:
        return found
    if modifier is None:
        return set()
    assert modifier.type == promql.AggModifierType.By, "name the labels that are left"
    assert set(modifier.labels) <= found, f"{expression.prettify()}: {set(modifier.labels) - found}"
    return set(modifier.labels)


def _joined(expression: Any) -> set[str]:
    left, right = _labels(expression.lhs), _labels(expression.rhs)
    modifier = expression.modifier
    if not left or not right or modifier is None or modifier.matching is None:
        return left or right
    on = set(modifier.matching.labels)
    assert modifier.matching.type == promql.LabelModifierType.Include
    assert on <= (left | {WORKER}), f"{expression.prettify()}: {on - left}"
    assert on <= (right | {WORKER}), f"{expression.prettify()}: {on - right}"
    is_arithmetic = str(expression.op) not in {"and", "or", "unless"}
    if is_arithmetic and modifier.card == promql.VectorMatchCardinality.OneToOne:
        return on
    return left
