"""Draw the server CPU of all workloads and servers as SVG, readable on a light and on a dark page."""

from collections.abc import Iterator
from html import escape

from benchmarks.results import Results

_COLOURS = {
    "commerce": "#2f81f7",
    "bare": "#8b949e",
    "guide": "#d29922",
    "fastapi": "#a371f7",
    "node": "#3fb950",
    "echo": "#b0b7bf",
}
_WIDTH, _LEFT, _BARS_WIDTH = 720, 90, 540
_BAR, _TITLE, _GAP = 18, 26, 14
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def plot(results: Results, in_flight: int, connections: int) -> str:
    """Return an SVG with a group of bars for each workload; each group has its own scale."""
    parts, top = [], 2 * _GAP
    for workload in dict.fromkeys(found.workload for found in results.measurements):
        found = (results.find(workload, server, in_flight, connections) for server in results.servers)
        bars = {one.server: one.cpu_us.median for one in found if one}
        if bars:
            parts.append(f'<text class="title" x="0" y="{top + _TITLE - 10}">{escape(workload)}</text>')
            parts += _bars(bars, top + _TITLE)
            top += _TITLE + _BAR * len(bars) + _GAP
    heading = f"Server CPU per call in µs, {in_flight} calls in flight over {connections} connections"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<text x="0" y="{_GAP}">{heading}; lower is better; each group has its own scale</text>\n'
        + "".join(f"{part}\n" for part in parts)
        + "</svg>\n"
    )


def _bars(values: dict[str, float], top: int) -> Iterator[str]:
    for index, (server, value) in enumerate(values.items()):
        y, length = top + index * _BAR, _BARS_WIDTH * value / max(values.values())
        yield f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(server)}</text>'
        yield f'<rect x="{_LEFT}" y="{y + 2}" width="{length:.1f}" height="{_BAR - 4}" fill="{_COLOURS[server]}"/>'
        yield f'<text x="{_LEFT + length + 6:.1f}" y="{y + 13}">{value:,.0f}</text>'
