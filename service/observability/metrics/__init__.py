"""Metrics: what is counted, in plain integers, and the page of it that Prometheus reads (`docs/metrics.md`).

While calls run, nothing but integers and lists in memory changes (`histogram`, `calls`, `statements`). A snapshot of
them is taken when the page is read (`snapshot`), those of several workers are merged (`workers`), and
prometheus_client, which only `page` imports, writes the page. `catalogue` has the names of all metrics.
"""
