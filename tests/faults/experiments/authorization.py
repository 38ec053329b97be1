"""Every method, called by every kind of caller: who must be refused is, and who may call can."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc import StatusCode

from tests.faults.as_caller import (
    Metadata,
    Outcome,
    about_nothing,
    call_as,
    clients_as,
    good_request,
    users_named,
)
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.guarded import Guarded, declared
from tests.faults.without import without
from tests.support.clients import new_order
from tests.support.databases import driver_connection
from tests.support.methods import ALL_METHODS
from tests.support.processes import COMMAND, serving
from tests.support.servers import OwnServer

_INTERCEPTORS = "service.rpc.interceptors"
_NO_AUTHORIZATION = f"{_INTERCEPTORS}.authorization:AuthorizationInterceptor.wrap={_INTERCEPTORS}.base:Interceptor.wrap"


@dataclass
class _Matrix:
    """Calls every method as callers of one kind after the other.

    Attributes:
        wrong: what was not as declared.
        cells: how many calls of each kind were made.
    """

    guarded: Guarded
    server: OwnServer
    channel: grpc.aio.Channel
    wrong: list[str] = field(default_factory=list)
    cells: Counter[str] = field(default_factory=Counter)

    async def refuse(self) -> None:
        """Check all callers who must be refused, and that their calls write nothing."""
        requests = {name: (await self._good(name)).SerializeToString() for name in ALL_METHODS}
        before = await self.server.contents()
        for what, credential in self.guarded.refused().items():
            calls = [self._call("unknown callers", name, request, credential) for name, request in requests.items()]
            for name, outcome in zip(requests, await asyncio.gather(*calls), strict=True):
                if (outcome.code, outcome.reason) != (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER"):
                    self._note(name, what, outcome)
        for name, method in ALL_METHODS.items():
            permission = declared(method).permission
            for role in ("nothing", f"all-but-{permission.replace('.', '-')}"):
                outcome = await self._call("without permission", name, requests[name], self.guarded.service(role))
                self._require_denied(name, role, outcome, permission)
        if await self.server.contents() != before:
            self.wrong.append("a refused call wrote something")

    async def allow(self) -> None:
        """Check callers who have the permission of a method, and nothing else."""
        for name, method in ALL_METHODS.items():
            request = _unprivileged(await self._good(name))
            role = f"only-{declared(method).permission.replace('.', '-')}"
            outcome = await self._call("with permission", name, request.SerializeToString(), self.guarded.service(role))
            if outcome.code != StatusCode.OK:
                self._note(name, role, outcome)

    async def limit(self) -> None:
        """Check end users: each may call what can be limited to what is its own, and about nothing else."""
        stranger = self.guarded.user((await self.server.clients.create_user()).id)
        for name, method in ALL_METHODS.items():
            request = _unprivileged(await self._good(name))
            if "ids" in request.DESCRIPTOR.fields_by_name:
                # Some are of two users.
                del request.ids[1:]
            data = request.SerializeToString()
            if not declared(method).HasField("own"):
                outcome = await self._call("end users", name, data, stranger)
                self._require_denied(name, "an end user", outcome, declared(method).permission)
                continue
            owners = await users_named(self.server.connection, request)
            if not owners:
                await self._limit_unnamed(name, data, stranger)
                continue
            (owner,) = owners
            await self._limit_named(name, method, data, stranger)
            outcome = await self._call("end users, own", name, data, self.guarded.user(owner))
            if outcome.code != StatusCode.OK:
                self._note(name, "the owner", outcome)

    async def _limit_named(self, name: str, method: MethodDescriptor, data: bytes, stranger: Metadata) -> None:
        """Check requests about things of another user, which must be answered as if the things did not exist."""
        before = await self.server.contents()
        outcome = await self._call("end users, others'", name, data, stranger)
        self._require_denied(name, "a stranger", outcome, declared(method).permission)
        missing = await self._call("end users, nobody's", name, about_nothing(data), stranger)
        if missing != outcome:
            self.wrong.append(f"{name}: a stranger learns whether something exists: {outcome} or {missing}")
        if await self.server.contents() != before:
            self.wrong.append(f"{name}: a stranger's call wrote something")

    async def _limit_unnamed(self, name: str, data: bytes, stranger: Metadata) -> None:
        """Check requests that name nothing: the stranger may call them, and must see nothing of others."""
        order = await self.server.clients.create_order((await self.server.clients.create_user()).id)
        outcome = await self._call("end users, others'", name, data, stranger)
        if outcome.code != StatusCode.OK:
            self._note(name, "an end user", outcome)
        if order.id.encode() in outcome.answer or order.user_id.encode() in outcome.answer:
            self.wrong.append(f"{name}: a stranger sees an order or a user of another")
        owner = self.guarded.user(order.user_id)
        own = await self._call("end users, own", name, data, owner)
        if order.user_id.encode() not in own.answer:
            self._note(name, "the owner, who sees nothing", own)

    async def keep_apart(self) -> None:
        """Check that no caller can use another's request id, page token or cursor, nor keep using its own."""
        user = await self.server.clients.create_user()
        for _ in range(3):
            await self.server.clients.create_order(user.id)
        one, other = self.guarded.service("all"), self.guarded.admin
        request_id = "7b6c1f5e-3a53-4c39-9a52-6a3c1f3d7e11"
        create = orders_pb.CreateOrderRequest(order=new_order(user.id), request_id=request_id).SerializeToString()
        answers = [await self._call("others' ids", "CreateOrder", create, caller) for caller in (one, other, one)]
        if answers[0] != answers[2] or answers[0].answer == answers[1].answer:
            self.wrong.append(f"a caller got the stored response of another, or not its own: {answers}")
        denied = await self._call("others' ids", "CreateOrder", create, self.guarded.service("nothing"))
        self._require_denied("CreateOrder", "a caller of the request id", denied, "orders.write")
        listing = orders_pb.ListOrdersRequest(user_id=user.id, page_size=1)
        listed = await self._call("others' ids", "ListOrders", listing.SerializeToString(), one)
        listing.page_token = orders_pb.ListOrdersResponse.FromString(listed.answer).next_page_token
        watching = users_pb.WatchUsersRequest(earliest=True)
        watched = await self._call("others' ids", "WatchUsers", watching.SerializeToString(), one)
        watching = users_pb.WatchUsersRequest(cursor=users_pb.WatchUsersResponse.FromString(watched.answer).cursor)
        for name, request, reason in (
            ("ListOrders", listing, "INVALID_PAGE_TOKEN"),
            ("WatchUsers", watching, "INVALID_CURSOR"),
        ):
            data = request.SerializeToString()
            if (outcome := await self._call("others' ids", name, data, one)).code != StatusCode.OK:
                self._note(name, "the caller itself", outcome)
            if (outcome := await self._call("others' ids", name, data, other)).reason != reason:
                self._note(name, "another caller", outcome)

    async def _good(self, name: str) -> Any:
        return await good_request(self.server.clients, name)

    async def _call(self, kind: str, name: str, request: bytes, credential: Metadata) -> Outcome:
        self.cells[kind] += 1
        return await call_as(self.channel, name, request, credential)

    def _require_denied(self, name: str, who: str, outcome: Outcome, permission: str) -> None:
        expected = (StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", permission)
        if (outcome.code, outcome.reason, outcome.permission) != expected:
            self._note(name, who, outcome)

    def _note(self, name: str, who: str, outcome: Outcome) -> None:
        found = f"{outcome.code.name} {outcome.reason} {outcome.permission} {outcome.message}".strip()
        self.wrong.append(f"{name} as {who}: {found}")


def _unprivileged(request: Any) -> Any:
    """Return a request without the fields that need a permission of their own."""
    if "user" in request.DESCRIPTOR.fields_by_name:
        request.user.ClearField("superuser")
    if "welcome_credit" in request.DESCRIPTOR.fields_by_name:
        request.ClearField("welcome_credit")
    return request


async def _run(plan: Plan) -> Result:
    return await _try_all(plan, COMMAND)


async def _control(plan: Plan) -> Result:
    return await _try_all(plan, without(_NO_AUTHORIZATION))


async def _try_all(plan: Plan, program: Sequence[str]) -> Result:
    guarded = Guarded(plan.folder)
    async with (
        plan.database() as url,
        driver_connection(url) as connection,
        # Watches are read until a checkpoint, which comes after the last event.
        serving(url, program=program, watch_checkpoint_interval=0.2, **guarded.settings) as process,
        clients_as(await process.port(), guarded.admin) as clients,
        grpc.aio.insecure_channel(f"127.0.0.1:{await process.port()}") as channel,
    ):
        matrix = _Matrix(guarded, OwnServer(clients, url, connection), channel)
        await matrix.refuse()
        await matrix.allow()
        await matrix.limit()
        await matrix.keep_apart()
    result = Result(
        {"methods": len(ALL_METHODS), **matrix.cells, "not as declared": len(matrix.wrong)},
    )
    for wrong in matrix.wrong[:20]:
        result.require(False, wrong)  # noqa: FBT003 - each is a criterion that was not met
    return result


EXPERIMENT = Experiment(
    name="authorization",
    fault="every method is called by unknown, forged, expired, unauthorized and other callers",
    passes="all calls are refused or allowed as the proto and the policy declare; those refused write and tell nothing",
    run=_run,
    control=_control,
    defence="authorization",
)
