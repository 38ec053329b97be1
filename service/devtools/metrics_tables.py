"""The tables of docs/metrics.md. `python -m service.devtools.metrics_tables` prints them."""

import click

from service.observability.metrics.catalogue import PARTS, Family

_HEAD = "| Metric | Type | Labels | Workers | Meaning |\n|---|---|---|---|---|"
_MERGED = {"sum": "sum", "max": "highest", "min": "lowest", "each": "`worker`"}


def row(family: Family) -> str:
    """Return the row of a metric."""
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    merged = _MERGED[family.merge]
    return f"| `{family.documented_name}` | {family.kind} | {labels} | {merged} | {family.words} |"


def tables() -> str:
    """Return all tables, each with its heading."""
    parts = (
        "\n".join([f"### {name}", "", _HEAD, *(row(family) for family in families)]) for name, families in PARTS.items()
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    click.echo(tables())
