"""Health in three parts (grpc.health.v1).

The empty name is liveness: it never depends on the database, so an outage restarts nothing. `readiness` is whether the
database can be used, and the name of each service is the readiness of that service.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

READINESS = "readiness"
# Hysteresis: one lost packet must not take a server out of service, nor one lucky answer bring it back.
FAILURES_TO_STOP = 3
SUCCESSES_TO_SERVE = 2
PERIOD_SECONDS = 1.0

log = structlog.get_logger()


class Readiness:
    """Keeps `readiness` and the services' names at what a probe says.

    Args:
        servicer: the health service to tell.
        services: full names of the services that need the database.
        problem: says what is wrong with the database, or None.
    """

    def __init__(
        self, servicer: aio.HealthServicer, services: Sequence[str], problem: Callable[[], Awaitable[str | None]]
    ) -> None:
        self._servicer = servicer
        self._names = (READINESS, *services)
        self._problem = problem
        self._serving = False
        self._streak = 0

    async def start(self) -> str | None:
        """Probe once and take the answer at its word; return the problem, if there is one."""
        problem = await self._problem()
        await self._set(serving=problem is None)
        return problem

    async def watch(self) -> None:
        """Probe until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.observe(await self._problem())

    async def observe(self, problem: str | None) -> None:
        """Count one answer of the probe, and change the status when there have been enough of them in a row."""
        if (problem is None) == self._serving:
            self._streak = 0
            return
        self._streak += 1
        if self._streak >= (FAILURES_TO_STOP if self._serving else SUCCESSES_TO_SERVE):
            log.warning("not ready" if problem else "ready", problem=problem)
            await self._set(serving=problem is None)

    async def stop(self) -> None:
        """Say NOT_SERVING; liveness stays, as a server that drains is not one to restart."""
        await self._set(serving=False)

    async def _set(self, *, serving: bool) -> None:
        self._serving, self._streak = serving, 0
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
