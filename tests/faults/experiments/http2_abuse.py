"""Connections that abuse HTTP/2."""

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from tests.faults.abuse import MAX_RATIO, suffered
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.http2_attacks import ATTACKS
from tests.faults.scheduling import lower_priority_of_session
from tests.faults.without import without
from tests.support.large_rows import insert_users
from tests.support.processes import COMMAND, running_program, serving

_MAX_MEBIBYTES = 50
# Those that take little time to show what they do.
_IN_SHORT = ("header-flood", "gzip-bombs", "ping-flood")


async def _run(plan: Plan) -> Result:
    return await _abuse(plan, COMMAND, _IN_SHORT if plan.smoke else [*ATTACKS])


async def _control(plan: Plan) -> Result:
    # Those against which options of gRPC defend.
    program = without("grpc.aio:server=tests.faults.grpc_options:without_limits")
    return await _abuse(plan, program, ["many-streams", "header-flood"])


async def _abuse(plan: Plan, program: Sequence[str], attacks: Sequence[str]) -> Result:
    # So long that what an attack costs once, such as the calls that it opens, is less than a hundredth of the time.
    seconds = str(plan.size(full=6, smoke=1))
    reports: list[tuple[str, dict[str, int]]] = []
    async with plan.database() as url:
        # Of which the slow readers want to read pages.
        await insert_users(url, plan.size(full=20_000, smoke=100))
        async with serving(url, program=program, max_connection_age=0) as server:
            command = (sys.executable, "-m", "tests.faults.http2_attacks")

            async def attack(name: str, measuring: AbstractAsyncContextManager[None]) -> None:
                async with (
                    measuring,
                    running_program(*command, name, str(await server.port()), "--seconds", seconds) as attacker,
                ):
                    # From its start on, so that the time that it takes to start does not count.
                    lower_priority_of_session(attacker.pid)
                    ended = await attacker.end()
                reports.append((name, json.loads(ended.stdout)))

            result = await suffered(plan, server, attacks, attack, max_mebibytes=_MAX_MEBIBYTES)
    for name, report in reports:
        result.require(bool(report), f"{name} did nothing")
    return result


EXPERIMENT = Experiment(
    name="http2-abuse",
    fault="connections open 5,000 streams, reset calls, do not read or send, or flood with frames, headers and zeros",
    passes=f"the p99 of others stays below {MAX_RATIO} times that in quiet, and the server takes less than "
    f"{_MAX_MEBIBYTES} MiB more",
    run=_run,
    control=_control,
    defence="limits of streams and headers",
)
