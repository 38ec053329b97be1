"""An attacker who measures how long sign-ins take, to learn which users exist."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import commerce.users.v1.user_service_pb2 as pb
import grpc

from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.without import without
from tests.support.clients import Clients, connect
from tests.support.databases import driver_connection
from tests.support.failures import failure_of
from tests.support.passwords import SLOW_PASSWORDS
from tests.support.processes import COMMAND, serving

_WRONG = "wrong horse battery"
_MAX_DIFFERENCE_PERCENT = 5.0
_ROUNDS = 5
# All attempts with one login but the first are refused.
_LIMIT: dict[str, Any] = {"sign_in_free_attempts": 1, "sign_in_max_delay": 3600}


async def _run(plan: Plan) -> Result:
    return await _measure(plan, plan.size(full=500, smoke=20), COMMAND)


async def _control(plan: Plan) -> Result:
    verify = "service.passwords:Argon2Passwords.verify=tests.faults.replacements:verify_known_only"
    return await _measure(plan, 50, without(verify))


async def _measure(plan: Plan, count: int, program: Sequence[str]) -> Result:
    chance = plan.random()
    async with plan.database() as url, serving(url, program=program, **SLOW_PASSWORDS, **_LIMIT) as server:
        await create_users(url, count)
        async with driver_connection(url) as connection, connect(await server.port()) as clients:
            user = await clients.create_user()
            # One password for all, because hashing one for each takes longer than the experiment.
            await connection.execute(
                "UPDATE user_passwords SET password_hash = mine.password_hash FROM user_passwords AS mine"
                " WHERE mine.user_id = $1",
                user.id,
            )
            known = [row["username"] for row in await connection.fetch("SELECT username FROM users LIMIT $1", count)]
            # As long as the known ones.
            unknown = [f"v{name[1:]}" for name in known]
            # Neighbours in time, in random order, so that both are affected alike by what else the machine does.
            logins = [name for pair in zip(known, unknown, strict=True) for name in chance.sample(pair, 2)]
            for name in known[:5]:
                # Connections, caches and prepared statements.
                await _seconds(clients, f"w{name[1:]}", "INVALID_CREDENTIALS")
            checked = {name: await _seconds(clients, name, "INVALID_CREDENTIALS") for name in logins}
            # The pause lasts for as long as this takes: the attempts before began to count earlier.
            await connection.execute("UPDATE sign_in_attempts SET retry_time = clock_timestamp() + interval '50 min'")
            # Often, because they take so little time that their median would vary by as much as is allowed.
            rounds = [[await _seconds(clients, name, "SIGN_IN_LIMIT") for name in logins] for _ in range(_ROUNDS)]
            refused = {name: median(seconds) for name, *seconds in zip(logins, *rounds, strict=True)}
    result = Result({"attempts of each kind": count})
    for kind, seconds in (("checked", checked), ("refused", refused)):
        of_known, of_unknown = (1000 * median(seconds[name] for name in names) for names in (known, unknown))
        difference = 100 * abs(of_known - of_unknown) / max(of_known, of_unknown)
        result.figures |= {
            f"{kind}, known, median ms": round(of_known, 2),
            f"{kind}, unknown, median ms": round(of_unknown, 2),
            f"{kind}, difference %": round(difference, 2),
        }
        result.require_in_time(
            difference < _MAX_DIFFERENCE_PERCENT, f"attempts that are {kind} take another time for unknown users"
        )
    return result


async def _seconds(clients: Clients, username: str, reason: str) -> float:
    """Return how long an attempt takes, which must fail for this reason."""
    request = pb.VerifyPasswordRequest(username=username, password=_WRONG)
    start = time.perf_counter()
    try:
        await clients.users.VerifyPassword(request)
    except grpc.aio.AioRpcError as error:
        seconds = time.perf_counter() - start
        if (failure := failure_of(error)).reason != reason:
            raise AssertionError(failure) from error
        return seconds
    raise AssertionError("signed in")


EXPERIMENT = Experiment(
    name="sign-in-timing",
    fault="wrong passwords for 500 known and 500 unknown users in random order, then again during the pause",
    passes="the medians of known and of unknown users differ by less than 5 %",
    run=_run,
    control=_control,
    defence="hashing for unknown users",
)
