"""Every exception that exists, raised in every kind of method."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as pb
from commerce.common.v1.error_reason_pb2 import ErrorReason
from commerce.users.v1.user_import_pb2 import UserImportConfig
from grpc.aio import AioRpcError

from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.failing import HEADER, SECRETS, exceptions
from tests.faults.without import without
from tests.support.clients import Clients, connect, new_user
from tests.support.failures import ENDED_WHILE_SENDING, failure_of
from tests.support.metrics_pages import OPEN_METRICS, read_page
from tests.support.processes import serving

_SERVICER = "service.rpc.servicers.users:UserServicer"
# One method of each kind: reads, writes, streams of responses, streams of requests.
_FAILING = {"GetUser": "unary", "CreateUser": "unary", "WatchUsers": "streaming", "ImportUsers": "unary"}
_REPLACED = [f"{_SERVICER}.{method}=tests.faults.failing:{kind}" for method, kind in _FAILING.items()]
_CALLERS = 16
_REASONS = set(ErrorReason.keys())
# What the call sends itself must not get out either.
_SENT = {"password": "leaked password", "key": "leaked-key"}
_CREDENTIALS = ((("authorization", f"Bearer {SECRETS['token']}"),), (("x-api-key", _SENT["key"]),))


@dataclass(frozen=True)
class _Call:
    """A call that fails.

    Attributes:
        method: the name of the method.
        name: the name of the exception.
        credentials: metadata that is no valid credential.
        id: the call's `x-request-id`.
    """

    method: str
    name: str
    credentials: tuple[tuple[str, str], ...] = ()
    id: str = field(default_factory=lambda: str(uuid4()))


async def _run(plan: Plan) -> Result:
    names = exceptions()
    chosen = plan.random().sample(names, 60) if plan.smoke else names
    return await _scan(plan, chosen, without(*_REPLACED))


async def _control(plan: Plan) -> Result:
    replaced = "service.rpc.interceptors.errors:ErrorInterceptor.wrap=service.rpc.interceptors.base:Interceptor.wrap"
    return await _scan(plan, plan.random().sample(exceptions(), 60), without(*_REPLACED, replaced))


async def _scan(plan: Plan, names: Sequence[str], program: Sequence[str]) -> Result:
    calls = [_Call(method, name) for name in names for method in _FAILING]
    calls += [_Call(method, "builtins:RuntimeError", sent) for method in _FAILING for sent in _CREDENTIALS]
    hits: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    async with (
        plan.database() as url,
        serving(url, program=program, log_format="json", metrics_port=0) as server,
    ):
        async with connect(await server.port()) as clients:
            waiting = iter(calls)

            async def caller() -> None:
                for call in waiting:
                    error = await _fail(clients, call)
                    failure = failure_of(error)
                    codes[failure.code.name] += 1
                    hits.update(_found(_text_of(error), call.name))
                    if f"ERROR_REASON_{failure.reason}" not in _REASONS and failure.message != ENDED_WHILE_SENDING:
                        what = f"{failure.code.name} {failure.reason} {failure.message}"
                        wrong.append(f"{call.method} {call.name}: {what}")

            await asyncio.gather(*(caller() for _ in range(_CALLERS)))
            # It still serves.
            await clients.users.ListUsers(pb.ListUsersRequest())
        metrics_port = (await server.until_logged("serving"))["metrics_port"]
        for accept in (OPEN_METRICS, "text/plain"):
            page = await read_page(metrics_port, accept=accept)
            hits.update(f"{hit} in the metrics" for name in names for hit in _found(page.text, name))
            assert page.total("grpc_server_handled_total", grpc_method="GetUser") >= len(names)
        ended = await server.terminate()
    log = ended.stderr
    hits.update(f"{secret} in the log" for secret in _found(log, "error"))
    by_call = {call.id: call.name for call in calls}
    for line in log.splitlines():
        if found := re.search(r'"x_request_id":"([^"]+)"', line):
            hits.update(f"{hit} in the log" for hit in _found(line, by_call.get(found[1], "error")))
    result = Result(
        {
            "classes": len(names),
            "calls": len(calls),
            "statuses": ", ".join(f"{code} {count:,}" for code, count in codes.most_common()),
            "hits": hits.total(),
            "statuses without a reason": len(wrong),
        }
    )
    result.require(not hits, f"secrets got out: {dict(hits)}")
    result.require(not wrong, f"statuses without a reason: {wrong[:5]}")
    result.require(ended.status == 0, f"the server ended with status {ended.status}")
    return result


async def _fail(clients: Clients, sent: _Call) -> AioRpcError:
    metadata = ((HEADER, sent.name), ("x-request-id", sent.id), *sent.credentials)
    user = new_user(email=f"{uuid4().hex[:8]}.{SECRETS['e-mail']}")
    requests: dict[str, Any] = {
        "GetUser": pb.GetUserRequest(email=user.email),
        "CreateUser": pb.CreateUserRequest(user=user, password=_SENT["password"]),
        "WatchUsers": pb.WatchUsersRequest(now=True),
        "ImportUsers": iter([pb.ImportUsersRequest(config=UserImportConfig())]),
    }
    call = getattr(clients.users, sent.method)(requests[sent.method], metadata=metadata, timeout=60)
    try:
        if sent.method == "WatchUsers":
            async for _ in call:
                pass
        else:
            await call
    except AioRpcError as error:
        return error
    raise AssertionError(f"{sent.method} did not fail with {sent.name}")


def _text_of(error: AioRpcError) -> str:
    """Return everything that the caller was told, with the binary details as text."""
    metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
    return " ".join([error.details() or "", *(f"{key} {value!r}" for key, value in metadata)])


def _found(text: str, name: str) -> list[str]:
    """Return which secrets are in a text: one of SECRETS, what the call sent, or the name of its exception."""
    found = [kind for kind, secret in {**SECRETS, **_SENT}.items() if secret in text]
    kind = name.rpartition(":")[2].rpartition(".")[2]
    # Some in C are called `error`, as many other things are.
    if not kind.islower() and re.search(rf"\b{kind}\b", text):
        found.append(f"class name {kind}")
    if re.search(r'File "|\.py"', text):
        found.append("traceback")
    return found


EXPERIMENT = Experiment(
    name="leaks",
    fault="every class of exceptions of the service, its libraries and Python, full of secrets (SQL, hash, e-mail, "
    "path, token), raised in a read, a write, a watch and an import",
    passes="no secret, class name or traceback in statuses, the log and the metrics; every status has a documented "
    "reason",
    run=_run,
    control=_control,
    defence="the interceptor for errors",
)
