"""The server's event loop (`service.rpc.transport.event_loop`), in another process, because gRPC wakes all loops."""

import asyncio
import sys
from asyncio.subprocess import PIPE

from tests.support.event_loop_turns import CALLS, TURNS


async def bytes_left(accept: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.event_loop_turns", accept, stdout=PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return int(output)


async def test_all_wake_ups_of_grpc_are_read_in_one_turn() -> None:
    # Other events of calls may arrive meanwhile.
    assert await bytes_left("auto") < CALLS / 2


async def test_the_loop_is_uvloops_own_where_nothing_of_grpcs_is_used() -> None:
    assert await bytes_left("listeners") >= CALLS - TURNS
