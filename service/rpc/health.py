"""Health checks (grpc.health.v1) for liveness, for readiness, and for each service.

Liveness has the empty name. It does not depend on the database, so an outage of the database restarts no server.
`readiness` and the name of each service report SERVING while the database can be used.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from service.rpc.methods import Context

LIVENESS = ""
READINESS = "readiness"
# Hysteresis: one lost packet must not take a server out of service, and one good answer must not bring it back.
FAILURES_TO_STOP = 3
SUCCESSES_TO_SERVE = 2
PERIOD_SECONDS = 1.0

# The stubs do not have it yet.
_HealthListResponse: Any = health_pb2.HealthListResponse  # type: ignore[attr-defined]

log = structlog.get_logger()


class HealthServicer(aio.HealthServicer):
    """The health service of grpcio, and its method List, which grpcio does not implement for asyncio."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, int] = {LIVENESS: HealthCheckResponse.SERVING}

    async def set(self, service: str, status: int) -> None:
        """Set the status of a service."""
        self._statuses[service] = status
        await super().set(service, status)

    async def List(self, _request: Message, _context: Context) -> Message:  # noqa: N802 - the name in the proto
        """Return the status of every service."""
        statuses = {name: HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        response: Message = _HealthListResponse(statuses=statuses)
        return response


class Readiness:
    """Sets the status of `readiness` and of the services from the results of a probe.

    Args:
        servicer: the health service that publishes the status.
        services: full names of the services that need the database.
        problem: the probe; returns what is wrong with the database, or None.
        no_answer: the result of a probe that is still running after a period.
    """

    def __init__(
        self,
        servicer: aio.HealthServicer,
        services: Sequence[str],
        problem: Callable[[], Awaitable[str | None]],
        no_answer: str = "the database does not answer in time",
    ) -> None:
        self._no_answer = no_answer
        self._servicer = servicer
        self._names = (READINESS, *services)
        self._problem = problem
        self._serving = False
        self._streak = 0

    @property
    def serving(self) -> bool:
        """Whether `readiness` reports SERVING."""
        return self._serving

    async def start(self) -> str | None:
        """Probe once, set the status from this one result, and return the problem, if there is one."""
        problem = await self._problem()
        await self._set(serving=problem is None)
        return problem

    async def watch(self) -> None:
        """Probe until cancelled.

        A probe that is still running after a period counts as a failure, and goes on: it may take longer to connect.
        """
        loop = asyncio.get_running_loop()
        probe: asyncio.Future[str | None] | None = None
        next_time = loop.time()
        try:
            while True:
                next_time = max(next_time + PERIOD_SECONDS, loop.time())
                await asyncio.sleep(next_time - loop.time())
                probe = probe or asyncio.ensure_future(self._problem())
                await asyncio.wait({probe}, timeout=PERIOD_SECONDS)
                problem: str | None = self._no_answer
                if probe.done():
                    problem, probe = self._result(probe), None
                await self.observe(problem)
        finally:
            if probe:
                probe.cancel()

    def _result(self, probe: asyncio.Future[str | None]) -> str | None:
        try:
            return probe.result()
        except Exception:
            # Without this, one unknown error would end the probing, and the last status would stay.
            log.exception("the check of the database failed")
            return "the check of the database failed"

    async def observe(self, problem: str | None) -> None:
        """Count one result of the probe; change the status after enough results in a row that contradict it."""
        if (problem is None) == self._serving:
            self._streak = 0
            return
        self._streak += 1
        if self._streak >= (FAILURES_TO_STOP if self._serving else SUCCESSES_TO_SERVE):
            log.warning("not ready" if problem else "ready", problem=problem)
            await self._set(serving=problem is None)

    async def stop(self) -> None:
        """Set NOT_SERVING, except for liveness: a draining server must not be restarted."""
        await self._set(serving=False)

    async def _set(self, *, serving: bool) -> None:
        self._serving, self._streak = serving, 0
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
