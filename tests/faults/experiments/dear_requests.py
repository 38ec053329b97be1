"""A caller makes 50 requests at a time that are dear: for the event loop, memory, PostgreSQL, or password threads."""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager

from tests.faults.abuse import MAX_RATIO, suffered
from tests.faults.apart import apart
from tests.faults.as_caller import clients_as
from tests.faults.dear_calls import add_data, make_dear_calls
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.offered_load import write_tokens
from tests.faults.without import without
from tests.support.failures import ENDED_WHILE_SENDING
from tests.support.large_rows import insert_users
from tests.support.passwords import SLOW_PASSWORDS
from tests.support.processes import COMMAND, serving

_MAX_MEBIBYTES = 100
# Those that would take the most memory.
_IN_SHORT = ("CreateOrder of 30,000 empty items", "BatchGetOrders of one large order", "ListOrders of large orders")
_WITHOUT = (
    "service.rpc.interceptors.validation:size_violations=tests.faults.dear_calls:no_violations",
    "service.runtime.loop_turns:LoopTurns.take=tests.faults.dear_calls:no_turn",
)
# What may become of dear calls. INVALID_FIELD is for those that break a rule.
_ALLOWED = {"OK", "OVERLOADED", "DEADLINE_EXCEEDED", "INVALID_FIELD", "RESPONSE_TOO_LARGE", ENDED_WHILE_SENDING}


async def _run(plan: Plan) -> Result:
    return await _call(plan, COMMAND, _IN_SHORT if plan.smoke else ())


async def _control(plan: Plan) -> Result:
    return await _call(plan, without(*_WITHOUT), _IN_SHORT[:1])


async def _call(plan: Plan, program: Sequence[str], only: Collection[str] = ()) -> Result:
    seconds = plan.size(full=5, smoke=1)
    outcomes: Counter[str] = Counter()
    async with plan.database() as url:
        await insert_users(url, plan.size(full=20_000, smoke=100))
        tokens, settings = write_tokens(plan.folder, "dear", "polite")
        dear, polite = ([("authorization", f"Bearer {tokens[name]}")] for name in ("dear", "polite"))
        async with serving(url, program=program, max_connection_age=0, **SLOW_PASSWORDS, **settings) as server:
            port = await server.port()
            async with clients_as(port, dear) as clients:
                requests = await add_data(clients)

            async def call(kind: str, measuring: AbstractAsyncContextManager[None]) -> None:
                data = requests[kind].SerializeToString()
                async with apart(make_dear_calls, port, kind, data, seconds, dear) as callers:
                    await callers.until_counted(1)
                    async with measuring:
                        callers.begin()
                        outcomes.update(await callers.ended())

            kinds = [kind for kind in requests if not only or kind in only]
            result = await suffered(plan, server, kinds, call, max_mebibytes=_MAX_MEBIBYTES, metadata=polite)
    result.figures["dear calls"] = outcomes.total()
    unexpected = {reason: number for reason, number in outcomes.items() if reason not in _ALLOWED}
    result.require(not unexpected, f"dear calls ended with {unexpected}")
    return result


EXPERIMENT = Experiment(
    name="dear-requests",
    fault="one caller makes 50 dear calls at a time, one kind after the other, beside another caller",
    passes=f"the p99 of others stays below {MAX_RATIO} times that in quiet, and the server takes less than "
    f"{_MAX_MEBIBYTES} MiB more",
    run=_run,
    control=_control,
    defence="checks of sizes before messages are parsed, and turns of large ones",
)
