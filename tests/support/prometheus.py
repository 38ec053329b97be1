"""Prometheus' programs: a server that reads pages of metrics and evaluates rules, and promtool."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT
from tests.support.processes import free_port, running_program
from tests.support.waiting import eventually

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
MISSING = "prometheus is not installed, or promtool (Debian's package prometheus has both)"

OBSERVABILITY = ROOT / "deploy" / "observability"
RULE_FILES = sorted((OBSERVABILITY / "rules").glob("*.yaml"))

Rule = Mapping[str, Any]


def rules() -> Iterator[Rule]:
    """Yield all rules: those that record, and alerts."""
    for path in RULE_FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, Rule]:
    """Return the alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must succeed, and return what it prints."""
    assert PROMTOOL
    ran = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


class Prometheus:
    """A running server.

    Args:
        port: its port.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    async def is_ready(self) -> bool:
        """Return whether it answers queries."""

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as response:  # noqa: S310 - http
                    return bool(response.status == 200)
            except OSError:
                return False

        return await to_thread(ready)

    async def query(self, query: str) -> list[dict[str, Any]]:
        """Return the series of a query, each with `metric` and `value`."""
        data = await self._get("query", query=query)
        result: list[dict[str, Any]] = data["result"] if data["resultType"] == "vector" else [data]
        return result

    async def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or fire, with labels and annotations."""
        found: list[dict[str, Any]] = (await self._get("alerts"))["alerts"]
        return found

    async def unhealthy_rules(self) -> list[dict[str, Any]]:
        """Return the rules that were not evaluated yet, or not without an error."""
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]

    async def targets(self) -> dict[str, str]:
        """Return whether each job can be read: `up`, `down` or `unknown`."""
        found = (await self._get("targets"))["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in found}

    async def _get(self, what: str, **parameters: str) -> Any:
        def get() -> Any:
            url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
            try:
                with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 - http
                    return json.load(response)["data"]
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

        return await to_thread(get)


@asynccontextmanager
async def running_prometheus(
    folder: Path, ports: Mapping[str, int], rule_files: Sequence[Path], *, seconds: float
) -> AsyncIterator[Prometheus]:
    """Run Prometheus until the block ends; it has read all pages once when the block begins.

    Args:
        folder: for its configuration and its data.
        ports: those of the pages of metrics on this machine, by the names of their jobs.
        rule_files: the rules.
        seconds: how often it reads pages and evaluates rules.
    """
    assert PROMETHEUS
    interval = f"{int(seconds * 1000)}ms"
    configuration = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": list(map(str, rule_files)),
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in ports.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    arguments = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    # It must not use both processors of a small machine.
    async with running_program(PROMETHEUS, *arguments, environment={**os.environ, "GOMAXPROCS": "1"}) as process:
        prometheus = Prometheus(port)

        async def has_read_all() -> bool:
            assert process.running, process.stderr()
            return await prometheus.is_ready() and "unknown" not in (await prometheus.targets()).values()

        await eventually(has_read_all)
        yield prometheus
