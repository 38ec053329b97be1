"""Compare the cost of a call that is refused for load with that of a GetUser: `python -m benchmarks.refusals`.

One server answers the calls, and another refuses them, because its only place is taken by a call that waits for a lock.
There, refusals are not paced (`service.rpc.admission.refusals`), so that both servers get the same load. A third server
does nothing but accept the call and send the status: less is not possible with gRPC for Python.
"""

import asyncio
import signal
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import fmean

import click

from benchmarks.bench import SCRATCH, SMOKE, stop
from benchmarks.callers import callers
from benchmarks.calls import Load, build, make_calls, write_calls
from benchmarks.database import Database, filled_database
from benchmarks.leaks import locked
from benchmarks.ratios import ROUNDS, SHAPE
from benchmarks.servers import KINDS, Kind, Server, running
from benchmarks.workloads import WORKLOADS
from tests.faults.without import without

CALLS = 6000
SERVING = KINDS[0]
NOT_PACED = "service.rpc.admission.refusals:IN_A_TICK=1000000000"
STATUS_ONLY = "service.rpc.transport.accepting:_send_refusal=benchmarks.status_only:send_status"


def refusing(name: str, *replaced: str) -> Kind:
    """Return a server that refuses calls, with parts of it replaced (`tests.faults.without`)."""
    settings = ("COMMERCE_MAX_CONCURRENT_CALLS=1", "COMMERCE_DEFAULT_DEADLINE=600", "COMMERCE_DB_POOL_TIMEOUT=600")
    return replace(SERVING, name=name, command=("env", *settings, *without(*replaced), "serve"))


REFUSING = refusing("refusing", NOT_PACED)
LEAST = refusing("status-only", NOT_PACED, STATUS_ONLY)


@click.command()
@click.option("--limit", default=0.6, show_default=True, help="Highest allowed ratio of server CPU per call.")
@ROUNDS
def main(*, limit: float, rounds: int) -> None:
    """Compare the cost of a call that is refused with that of one that is answered."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(SCRATCH / "postgres-refusals", SMOKE.data))
        servers = [stack.enter_context(running(kind, database.url, scratch)) for kind in (SERVING, REFUSING, LEAST)]
        program, file = build(SCRATCH), scratch / "calls"
        write_calls(file, islice(WORKLOADS["GetUser"].grpc(database.data, Random(1)), CALLS))
        taken = asyncio.run(measured(servers, database, program, file, rounds))
    answered, refused, least = map(fmean, taken)
    ratio = refused / answered
    click.echo(
        f"server CPU: {answered:.1f} µs a GetUser, {refused:.1f} µs a refusal (ratio {ratio:.2f}),"
        f" {least:.1f} µs a status (ratio {least / answered:.2f})"
    )
    if ratio > limit:
        raise click.ClickException(f"a refusal costs more than {limit:g} of a GetUser")


async def measured(
    servers: list[Server], database: Database, program: Path, file: Path, rounds: int
) -> list[list[float]]:
    """Return the server CPU per call of each server in each round, in microseconds; all but the first refuse calls."""
    serving, *refusing = servers
    user_id = database.data.user_id(1)
    lock = await locked(database.url, user_id)
    load = Load(SHAPE.connections, SHAPE.in_flight // SHAPE.connections, may_refuse=True)
    taken: list[list[float]] = [[] for _ in servers]
    try:
        with ExitStack() as stack:
            for server in refusing:
                stack.enter_context(callers("wait", server.port, 1, user_id))
                await waits(server, program, file)
            # The first round only warms up.
            for number in range(rounds + 1):
                for server, times in islice(cycle(zip(servers, taken, strict=True)), number, number + len(servers)):
                    server.truncate_log()
                    before = server.cpu_seconds()
                    outcome = await asyncio.to_thread(make_calls, program, server.port, file, CALLS, load)
                    if outcome.refused != (0 if server is serving else CALLS):
                        raise click.ClickException(f"{server.kind.name} refused {outcome.refused} of {CALLS} calls")
                    if number:
                        times.append((server.cpu_seconds() - before) / CALLS * 1e6)
            await lock.close()
    finally:
        await lock.close()
    return taken


async def waits(server: Server, program: Path, file: Path) -> None:
    """Wait until a server refuses calls."""
    for _ in range(100):
        outcome = await asyncio.to_thread(make_calls, program, server.port, file, 1, Load(1, 1, may_refuse=True))
        if outcome.refused:
            return
        await asyncio.sleep(0.05)
    raise click.ClickException(f"{server.kind.name} does not refuse calls")


if __name__ == "__main__":
    main()
