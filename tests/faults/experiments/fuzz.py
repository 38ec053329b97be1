"""Random requests of all methods, as `make fuzz` sends them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import commerce.users.v1.user_service_pb2 as pb

from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.without import without
from tests.fuzz.run import Findings, Fuzzer
from tests.support.clients import connect
from tests.support.methods import ALL_METHODS
from tests.support.processes import COMMAND, Process, serving

# Each makes four calls at a time. While one reads a stream, the others go on.
_FUZZERS = 3
_STREAM_SECONDS = 0.05
# By how much the memory may grow in the second half of the run, when caches are full.
_MAX_GROWTH_MIB = 50.0


async def _run(plan: Plan) -> Result:
    return await _fuzz(plan, plan.size(full=100_000, smoke=300), COMMAND)


async def _control(plan: Plan) -> Result:
    validation = "service.rpc.interceptors.validation:ValidationInterceptor"
    base = "service.rpc.interceptors.base:Interceptor"
    replaced = [f"{validation}.{method}={base}.{method}" for method in ("wrap", "deserializer")]
    return await _fuzz(plan, 2_000, without(*replaced))


async def _fuzz(plan: Plan, calls: int, program: Sequence[str]) -> Result:
    findings = Findings()
    async with plan.database() as url, serving(url, program=program, log_format="json") as server:
        async with connect(await server.port()) as clients:
            chance = plan.random()
            fuzzers = [
                Fuzzer(clients, Random(chance.getrandbits(64)), findings, stream_seconds=_STREAM_SECONDS, rounds=50)
                for _ in range(_FUZZERS)
            ]

            async def until(count: int) -> None:
                await asyncio.gather(*(fuzzer.run(lambda: findings.outcomes.total() < count) for fuzzer in fuzzers))

            await until(calls // 2)
            middle = _mebibytes(server)
            await until(calls)
            growth = _mebibytes(server) - middle
            # It serves, and from the database.
            user = await clients.create_user()
            await clients.users.GetUser(pb.GetUserRequest(id=user.id))
        ended = await server.terminate()
    errors = [line for line in ended.stderr.splitlines() if '"level":"error"' in line or "Traceback" in line]
    outcomes: Counter[str] = Counter()
    for (_, reason), count in findings.outcomes.items():
        outcomes[reason] += count
    untried = set(ALL_METHODS) - {method for method, _ in findings.outcomes}
    result = Result(
        {
            "calls": outcomes.total(),
            "methods": len(ALL_METHODS) - len(untried),
            "different outcomes": len(outcomes),
            "undocumented outcomes": len(findings.wrong),
            "errors in the log": len(errors),
            "growth in the second half, MiB": growth,
        }
    )
    result.require(not findings.wrong, f"outcomes that are not documented: {findings.wrong[:3]}")
    result.require(not errors, f"the server logged errors: {errors[:3]}")
    result.require(ended.status == 0, f"the server ended with status {ended.status}")
    result.require_in_time(not untried, f"methods that were not called: {sorted(untried)}")
    result.require_in_time(growth <= _MAX_GROWTH_MIB, f"the memory of the server grew by {growth:.0f} MiB")
    return result


def _mebibytes(server: Process) -> float:
    """Return the resident memory of the server."""
    status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


EXPERIMENT = Experiment(
    name="fuzz",
    fault="100,000 random requests of all methods, from messages with random fields to random bytes",
    passes="every call ends as the comment of its method says, the log has no error, and the memory does not grow",
    run=_run,
    control=_control,
    defence="validation",
)
