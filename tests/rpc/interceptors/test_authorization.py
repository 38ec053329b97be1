import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from service.config import ServerSettings, load
from service.rpc.identity.permissions import (
    UndeclaredPermission,
    authorization_of,
    can_be_limited,
    methods,
    path_of,
    permissions,
)
from service.rpc.interceptors.authorization import AuthorizationInterceptor
from service.rpc.interceptors.ownership import OwnershipInterceptor
from service.rpc.interceptors.privileged_fields import PrivilegedFieldsInterceptor
from service.rpc.methods import Method
from service.server import Server, StartError
from tests.support.clients import Clients, connect, new_user
from tests.support.failures import Failure, fails
from tests.support.methods import ALL_METHODS, METHODS, call
from tests.support.passwords import PASSWORD
from tests.support.policies import EVERYTHING, EVERYTHING_OWN, Guarded, guarded_server, policy_of, write_key_file
from tests.support.requests import GOOD_REQUESTS, euros
from tests.support.servers import serving_clients
from tests.support.waiting import eventually

NEEDED = {method.name: authorization_of(method).permission for method in methods()}
POLICY = {
    "key:all": EVERYTHING,
    "key:none": [],
    "key:own": EVERYTHING_OWN,
    **{f"key:only-{name}": [name] for name in EVERYTHING},
    **{f"key:without-{name}": [other for other in EVERYTHING if other != name] for name in EVERYTHING},
}


@pytest.fixture(scope="module")
async def guarded(
    postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("policy")
    async with guarded_server(postgres_url, template_url, folder, POLICY, watch_checkpoint_interval=0.1) as guarded:
        yield guarded


async def good_request(clients: Clients, method: str) -> Any:
    request = await GOOD_REQUESTS[method](clients)
    if method in {"CreateUser", "UpdateUser"}:
        # This needs another permission.
        request.user.superuser = False
    return request


async def import_requests() -> AsyncIterator[users_pb.ImportUsersRequest]:
    yield users_pb.ImportUsersRequest(config=UserImportConfig())
    user = new_user()
    yield users_pb.ImportUsersRequest(row=UserImportRow(email=user.email, username=user.username))


async def first_of(stream: Any) -> Any:
    async for response in stream:
        return response
    return None


# For each method that streams, what makes a call and waits for its first response.
STREAMS: dict[str, Callable[[Clients], Awaitable[Any]]] = {
    "ImportUsers": lambda clients: clients.users.ImportUsers(import_requests()),
    "ExportUsers": lambda clients: first_of(clients.users.ExportUsers(users_pb.ExportUsersRequest())),
    "WatchUsers": lambda clients: first_of(clients.users.WatchUsers(users_pb.WatchUsersRequest(now=True))),
    "ExportOrders": lambda clients: first_of(clients.orders.ExportOrders(orders_pb.ExportOrdersRequest())),
    "WatchOrders": lambda clients: first_of(clients.orders.WatchOrders(orders_pb.WatchOrdersRequest(now=True))),
}


async def make_call(clients: Clients, method: str, prepared_by: Clients) -> None:
    """Make a valid call of a method."""
    if method in STREAMS:
        await STREAMS[method](clients)
    else:
        await call(clients.channel, method, await good_request(prepared_by, method))


@contextmanager
def denied(permission: str, identity: str) -> Iterator[Failure]:
    """Require that the block is denied for the lack of a permission of an identity."""
    with fails(StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as failure:
        yield failure
    assert failure.metadata == {"permission": permission, "identity": identity}


@pytest.mark.parametrize("method", NEEDED)
async def test_a_method_is_allowed_with_its_permission_and_no_other(guarded: Guarded, method: str) -> None:
    everything = await guarded.clients_of("all")
    await make_call(await guarded.clients_of(f"only-{NEEDED[method]}"), method, everything)
    for key in ("none", f"without-{NEEDED[method]}", "unknown"):
        with denied(NEEDED[method], f"key:{key}") as failure:
            await make_call(await guarded.clients_of(key), method, everything)
        assert failure.message == f"the permission {NEEDED[method]} is missing for key:{key}"


@pytest.mark.parametrize("method", [method.name for method in methods() if not can_be_limited(method)])
async def test_a_method_that_cannot_be_limited_is_denied_to_those_who_are(guarded: Guarded, method: str) -> None:
    everything = await guarded.clients_of("all")
    user = await everything.create_user()
    with denied(NEEDED[method], "key:own") as failure:
        await make_call(await guarded.clients_of("own", user.id), method, everything)
    if permissions()[NEEDED[method]]:
        assert failure.message.endswith("and this method cannot be limited to one user")


@pytest.mark.parametrize("method", [method.name for method in methods() if can_be_limited(method)])
async def test_a_limited_permission_needs_a_user(guarded: Guarded, method: str) -> None:
    everything = await guarded.clients_of("all")
    with denied(NEEDED[method], "key:own") as failure:
        await make_call(await guarded.clients_of("own"), method, everything)
    assert failure.message.endswith("only for what belongs to one user, and the call is for no user")


async def test_a_denied_call_reads_and_writes_nothing(guarded: Guarded) -> None:
    with denied("users.read", "key:none") as of_nobody:
        await (await guarded.clients_of("none")).users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))
    user = await (await guarded.clients_of("all")).create_user()
    with denied("users.read", "key:none") as of_a_user:
        await (await guarded.clients_of("none")).users.GetUser(users_pb.GetUserRequest(id=user.id))
    with denied("users.read", "key:none") as invalid:
        await (await guarded.clients_of("none")).users.GetUser(users_pb.GetUserRequest(id="no id"))
    assert status_bytes(of_nobody) == status_bytes(of_a_user) == status_bytes(invalid)


def status_bytes(failure: Failure) -> str | bytes:
    return failure.trailers["grpc-status-details-bin"]


async def test_only_who_may_act_for_users_acts_for_one(guarded: Guarded) -> None:
    user = await (await guarded.clients_of("all")).create_user()
    request = users_pb.GetUserRequest(id=user.id)
    with denied("act_for_users", "key:without-act_for_users"):
        await (await guarded.clients_of("without-act_for_users", user.id)).users.GetUser(request)
    # A permission that is not limited stays so for a caller that acts for a user.
    other = await (await guarded.clients_of("all")).create_user()
    answer = await (await guarded.clients_of("all", other.id)).users.GetUser(request)
    assert answer.user.id == user.id


async def test_health_is_open_to_all(guarded: Guarded) -> None:
    for key in ("none", "unknown"):
        answer = await (await guarded.clients_of(key)).health.Check(HealthCheckRequest())
        assert answer.status == HealthCheckResponse.SERVING


async def test_denials_are_counted(guarded: Guarded) -> None:
    kind = ("/commerce.orders.v1.OrderService/TransferOrders", "orders.transfer")
    counts = guarded.server._authorization.denials.counts  # noqa: SLF001 - nothing else shows them yet
    before = counts[kind]
    with denied("orders.transfer", "key:none"):
        await make_call(await guarded.clients_of("none"), "TransferOrders", await guarded.clients_of("all"))
    assert counts[kind] == before + 1


# Fields with permissions of their own


@pytest.mark.parametrize(
    ("fields", "permission"),
    [({"user": new_user(superuser=True)}, "users.admin"), ({"welcome_credit": euros(5)}, "credit.grant")],
)
async def test_a_new_user_has_nothing_that_its_creator_may_not_give(
    guarded: Guarded, fields: dict[str, Any], permission: str
) -> None:
    request = users_pb.CreateUserRequest(**{"user": new_user(), "password": PASSWORD, **fields})
    with denied(permission, "key:only-users.write") as failure:
        await (await guarded.clients_of("only-users.write")).users.CreateUser(request)
    assert failure.message.startswith(f"the permission {permission} is missing for key:only-users.write: it is needed")
    await (await guarded.clients_of("all")).users.CreateUser(request)


@pytest.mark.parametrize(
    ("mask", "superuser", "allowed"),
    [
        (None, True, False),
        (None, False, True),
        (["full_name", "superuser"], True, False),
        # Also to take it away.
        (["superuser"], False, False),
        (["*"], False, False),
        (["full_name"], True, True),
    ],
)
async def test_only_who_may_makes_superusers(
    guarded: Guarded,
    mask: list[str] | None,
    *,
    superuser: bool,
    allowed: bool,
) -> None:
    everything = await guarded.clients_of("all")
    user = await everything.create_user()
    user.full_name, user.superuser, user.etag = "Grace Hopper", superuser, ""
    request = users_pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=mask) if mask else None)
    for clients in (await guarded.clients_of("only-users.write"), await guarded.clients_of("own", user.id)):
        if allowed:
            assert not (await clients.users.UpdateUser(request)).user.superuser
        else:
            with fails(StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as failure:
                await clients.users.UpdateUser(request)
            assert failure.metadata["permission"] == "users.admin"
    assert (await everything.users.UpdateUser(request)).user.superuser == (superuser and mask != ["full_name"])


# Changes of the policy


async def test_a_new_policy_applies_to_the_next_call(postgres_url: str, template_url: str, tmp_path: Path) -> None:
    async with guarded_server(postgres_url, template_url, tmp_path, {"key:a": ["users.write"]}) as guarded:
        clients = await guarded.clients_of("a")
        user = await clients.create_user()
        with denied("users.read", "key:a"):
            await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        guarded.change_policy({"key:a": ["users.read"]})
        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        with denied("users.write", "key:a"):
            await clients.create_user()


async def test_a_stream_ends_when_its_caller_loses_the_permission(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    policy = {"key:a": ["orders.read"], "key:b": ["users.admin"], "key:c": ["orders.read"]}
    settings = {"watch_checkpoint_interval": 0.05}
    async with guarded_server(postgres_url, template_url, tmp_path, policy, **settings) as guarded:
        loser, keeper = await guarded.clients_of("a"), await guarded.clients_of("c")
        watches = [one.orders.WatchOrders(orders_pb.WatchOrdersRequest(now=True)) for one in (loser, keeper)]
        for watch in watches:
            await watch.read()
        changed = asyncio.Event()

        async def requests() -> AsyncIterator[users_pb.ImportUsersRequest]:
            yield users_pb.ImportUsersRequest(config=UserImportConfig())
            await changed.wait()
            user = new_user()
            yield users_pb.ImportUsersRequest(row=UserImportRow(email=user.email, username=user.username))

        importing = asyncio.ensure_future((await guarded.clients_of("b")).users.ImportUsers(requests()))
        await eventually(lambda: path_of(ALL_METHODS["ImportUsers"]) in guarded.server._access_log.running_calls())  # noqa: SLF001 - nothing else shows that it has begun
        for _ in range(10):
            # The server runs on this event loop, and has authorized the call before it waits for a request.
            await asyncio.sleep(0)
        # A stream with a limit is not what the caller asked for, so it ends too.
        guarded.change_policy({"key:a": ["orders.read:own"], "key:b": ["users.read"], "key:c": ["orders.read"]})
        with denied("orders.read", "key:a"):
            async with asyncio.timeout(20):
                while True:
                    assert await watches[0].read() is not grpc.aio.EOF
        changed.set()
        with denied("users.admin", "key:b"):
            await importing
        for _ in range(3):
            assert await watches[1].read() is not grpc.aio.EOF
        watches[1].cancel()


# The start of a server


async def test_a_server_with_a_wrong_policy_does_not_start(database_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[roles]\na = []\n")
    settings = {"DATABASE_URL": database_url, "port": 0, "policy_file": policy}
    with pytest.raises(StartError, match="identities: must be a table"):
        await Server(load(ServerSettings, **settings, api_keys_file=write_key_file(tmp_path, []))).start()
    # Every caller would be anonymous, and denied.
    policy.write_text(policy_of({"key:a": EVERYTHING}))
    with pytest.raises(StartError, match="COMMERCE_POLICY_FILE is set, but callers have no identities"):
        await Server(load(ServerSettings, **settings)).start()


@pytest.mark.parametrize(
    ("setting", "to_all", "to_known"),
    [("auto", False, True), ("authenticated", False, True), ("on", True, True), ("off", False, False)],
)
async def test_reflection_is_for_those_whom_the_setting_names(
    postgres_url: str, template_url: str, tmp_path: Path, *, setting: str, to_all: bool, to_known: bool
) -> None:
    async with guarded_server(postgres_url, template_url, tmp_path, {"key:a": []}, reflection=setting) as guarded:
        assert await reflects((await guarded.clients_of("a")).channel) == to_known
        async with connect(guarded.server.port) as unknown:
            assert await reflects(unknown.channel) == to_all


@pytest.mark.parametrize(("setting", "open_to_all"), [("auto", True), ("on", True), ("authenticated", False)])
async def test_without_identities_reflection_is_open_unless_it_needs_one(
    database_url: str, *, setting: str, open_to_all: bool
) -> None:
    async with serving_clients(database_url, reflection=setting) as clients:
        assert await reflects(clients.channel) == open_to_all


async def reflects(channel: grpc.aio.Channel) -> bool:
    # A path of its own, because the client's interceptors know no streams in both directions.
    ask: Any = channel.unary_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    try:
        return [one async for one in ask(ServerReflectionRequest(list_services="").SerializeToString())] != []
    except grpc.aio.AioRpcError as error:
        outcome = error.code()
    assert outcome in {StatusCode.UNAUTHENTICATED, StatusCode.UNIMPLEMENTED}
    return False


def test_without_a_policy_no_method_is_wrapped() -> None:
    async def answer(request: Any, context: Any) -> None: ...

    for descriptor in methods():
        method = Method(path_of(descriptor), descriptor.client_streaming, descriptor.server_streaming, descriptor)
        for interceptor in (
            AuthorizationInterceptor(None),
            PrivilegedFieldsInterceptor(None),
            OwnershipInterceptor(None),
        ):
            assert interceptor.wrap(method, answer) is answer


def test_a_method_without_a_permission_is_not_served(guarded: Guarded) -> None:
    async def answer(request: Any, context: Any) -> None: ...

    interceptor = AuthorizationInterceptor(guarded.server._policies)  # noqa: SLF001
    with pytest.raises(UndeclaredPermission):
        interceptor.wrap(Method("/other.v1.Service/Method", False, False, None), answer)  # noqa: FBT003 - positional fields
    assert len(NEEDED) == len(METHODS) + len(STREAMS)
