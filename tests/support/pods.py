"""Pods of deploy/kubernetes as processes of this machine, with the settings, files, probes and ends that they name."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.support import sandbox
from tests.support.manifests import Resource, Workload
from tests.support.passwords import FAST_PASSWORDS
from tests.support.paths import ROOT
from tests.support.processes import COMMAND, CommandResult, Process, run_command, running_command
from tests.support.waiting import eventually

# So that it can write nowhere but where an `emptyDir` is mounted, like a container with a read-only root file system.
_CONFINED = (sys.executable, "-m", "tests.support.sandbox")


@dataclass(frozen=True)
class Release:
    """An image: the source tree that its programs run from."""

    tree: Path = ROOT


@dataclass(frozen=True)
class Cluster:
    """What the pods of a test share.

    Attributes:
        resources: what was applied.
        folder: where the volumes are.
        secrets: the files of each Secret that the resources do not have.
    """

    resources: Iterable[Resource]
    folder: Path
    secrets: Mapping[str, Path] = field(default_factory=dict)

    def volume(self, volume: Mapping[str, Any], pod: str) -> Path:
        """Return the folder of a volume; that of an `emptyDir` is the pod's own."""
        if secret := volume.get("secret"):
            return self.secrets[str(secret["secretName"])]
        if config_map := volume.get("configMap"):
            folder = self.folder / str(config_map["name"])
            if folder.exists():
                return folder
            folder.mkdir()
            (found,) = (
                resource
                for resource in self.resources
                if (resource["kind"], resource["metadata"]["name"]) == ("ConfigMap", config_map["name"])
            )
            for name, text in found["data"].items():
                (folder / name).write_text(text)
            return folder
        assert "emptyDir" in volume
        folder = self.folder / pod / str(volume["name"])
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Pod:
    """A pod that runs."""

    def __init__(self, workload: Workload, environment: Mapping[str, str], release: Release, process: Process) -> None:
        self._workload = workload
        self._environment = environment
        self._release = release
        self.process = process

    async def is_ready(self) -> bool:
        """Return what its readiness probe says."""
        return await self._answers(self._workload.container["readinessProbe"])

    async def is_alive(self) -> bool:
        """Return what its liveness probe says."""
        return await self._answers(self._workload.container["livenessProbe"])

    async def until_ready(self) -> None:
        """Wait until it is ready; fail if it has ended."""

        async def ready() -> bool:
            assert self.process.running, self.process.stderr()
            return await self.is_ready()

        # A probe that runs a program costs a second; begin when the server says that it serves.
        await self.process.until_logged("serving")
        await eventually(ready, 60)

    async def delete(self) -> CommandResult:
        """End it as the kubelet does, and fail if it needs more than its grace period."""
        seconds = self._workload.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        await asyncio.sleep(seconds)
        ending = self.process.terminate()
        return await asyncio.wait_for(ending, self._workload.pod["terminationGracePeriodSeconds"] - seconds)

    async def _answers(self, probe: Mapping[str, Any]) -> bool:
        if "grpc" in probe:
            return await self._serves(probe["grpc"].get("service", ""), probe["timeoutSeconds"])
        program, *arguments = probe["exec"]["command"]
        assert program == "commerce"
        checked = await run_command(*arguments, variables=self._environment, tree=self._release.tree)
        return checked.status == 0

    async def _serves(self, service: str, seconds: float) -> bool:
        port = self._environment["COMMERCE_PORT"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health: Any = HealthStub(channel)
            try:
                response = await health.Check(HealthCheckRequest(service=service), timeout=seconds)
            except grpc.aio.AioRpcError:
                return False
        return bool(response.status == HealthCheckResponse.SERVING)


def environment_of(cluster: Cluster, workload: Workload, pod: str, port: int | None = None) -> dict[str, str]:
    """Return the variables of a pod's container: its files are in the folders of its volumes, its port is this one."""
    environment = workload.environment(cluster.resources)
    for path, volume in workload.mounts.items():
        folder = cluster.volume(volume, pod)
        for name, value in environment.items():
            if PurePosixPath(value).is_relative_to(path):
                environment[name] = str(folder / PurePosixPath(value).relative_to(path))
    writable = (cluster.volume(volume, pod) for volume in workload.mounts.values() if "emptyDir" in volume)
    environment[sandbox.WRITABLE] = os.pathsep.join(map(str, writable))
    if port is not None:
        # All pods of the test are on one machine, so none can have the port for metrics of its manifest.
        environment |= {"COMMERCE_HOST": "127.0.0.1", "COMMERCE_PORT": str(port)}
        environment |= {"COMMERCE_METRICS_HOST": "127.0.0.1", "COMMERCE_METRICS_PORT": "0"}
    return environment


@asynccontextmanager
async def running_pod(
    cluster: Cluster, workload: Workload, name: str, release: Release, port: int | None = None
) -> AsyncIterator[Pod]:
    """Run a pod of a workload until the block ends, then kill it."""
    environment = environment_of(cluster, workload, name, port)
    command = (*_CONFINED, *COMMAND) if sandbox.is_possible() else COMMAND
    arguments = workload.container["args"]
    settings: dict[str, Any] = dict(FAST_PASSWORDS)
    async with running_command(
        *arguments, program=command, variables=environment, tree=release.tree, **settings
    ) as process:
        yield Pod(workload, environment, release, process)


async def run_job(cluster: Cluster, workload: Workload, name: str, release: Release) -> CommandResult:
    """Run a pod of a Job to its end."""
    async with running_pod(cluster, workload, name, release) as pod:
        return await pod.process.end(60)
