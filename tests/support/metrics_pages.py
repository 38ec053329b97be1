"""Reads the page of metrics of a server, as Prometheus does."""

import urllib.request
from asyncio import to_thread
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_older

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Page:
    """A page of metrics, parsed.

    Attributes:
        text: the page.
        families: its metrics by their names.
        samples: all samples.
    """

    def __init__(self, text: str, content_type: str) -> None:
        self.text = text
        parse = text_string_to_metric_families if content_type.startswith("application/openmetrics") else parse_older
        self.families = {family.name: family for family in parse(text)}
        self.samples: list[Sample] = [sample for family in self.families.values() for sample in family.samples]

    def values(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of the samples of this name with these labels, by the values of their other labels."""
        return {
            tuple(value for key, value in sample.labels.items() if key not in labels): sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name with these labels."""
        return sum(self.values(name, **labels).values())


async def read_page(port: int, *, accept: str = OPEN_METRICS, headers: Mapping[str, str] | None = None) -> Page:
    """Return the page of the server whose metrics are on a port of this machine."""

    def read() -> Page:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"accept": accept, **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - http
            return Page(response.read().decode(), response.headers["content-type"])

    return await to_thread(read)
