import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from google.type.money_pb2 import Money
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest

from service.config import ServerSettings, load
from service.rpc.identity.permissions import ACT_FOR_USERS
from service.rpc.interceptors.authentication import AuthenticationInterceptor
from service.rpc.methods import Method
from service.server import Server, StartError
from tests.support.clients import Clients, new_order, new_user
from tests.support.failures import Failure, fails, settled
from tests.support.identities import TokenIssuer, write_issuers, write_keys
from tests.support.logs import Log
from tests.support.passwords import PASSWORD
from tests.support.policies import EVERYTHING, policy_of
from tests.support.servers import OwnServer, own_server
from tests.support.waiting import eventually

Metadata = tuple[tuple[str, str], ...]


class Known:
    """A server that knows its callers, and their credentials."""

    def __init__(
        self, own: OwnServer, folder: Path, services: TokenIssuer, users: TokenIssuer, keys: list[str]
    ) -> None:
        self.own = own
        self.folder = folder
        self.services = services
        self.users = users
        self.billing: Metadata = (("x-api-key", keys[0]),)
        self.shop: Metadata = (("x-api-key", keys[1]),)

    @property
    def clients(self) -> Clients:
        return self.own.clients

    async def create_user(self, metadata: Metadata) -> str:
        request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD)
        return (await self.clients.users.CreateUser(request, metadata=metadata)).user.id

    async def accepts(self, key: str) -> None:
        """Wait until the server has read the file with this key, and create a user with it."""

        async def is_accepted() -> bool:
            _, failures = await settled(self.create_user((("x-api-key", key),)))
            return not failures

        await eventually(is_accepted)

    async def actor_of(self, user_id: str) -> str:
        actor: str = await self.own.connection.fetchval("SELECT actor FROM events WHERE aggregate_id = $1", user_id)
        return actor


def allowing_all(folder: Path) -> Path:
    """Write a policy that allows everything to everybody who is known, but only a shop to act for users."""
    path = folder / "policy.toml"
    not_for_users = [name for name in EVERYTHING if name != ACT_FOR_USERS]
    path.write_text(policy_of({"*": not_for_users, "key:shop": EVERYTHING}))
    return path


@asynccontextmanager
async def knowing(postgres_url: str, template_url: str, folder: Path) -> AsyncIterator[Known]:
    services, users = TokenIssuer("mesh"), TokenIssuer("accounts")
    issuers = write_issuers(folder, services, users)
    (folder / "issuers.toml").write_text(
        services.table("mesh.json", leeway=0) + users.table("accounts.json", leeway=0, subjects="users")
    )
    keys = write_keys(folder / "keys.toml", "billing", "shop")
    settings = {"jwt_issuers_file": issuers, "api_keys_file": folder / "keys.toml"}
    async with own_server(postgres_url, template_url, policy_file=allowing_all(folder), **settings) as own:
        yield Known(own, folder, services, users, keys)


@pytest.fixture(scope="module")
async def known(postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Known]:
    async with knowing(postgres_url, template_url, tmp_path_factory.mktemp("identities")) as known:
        yield known


@contextmanager
def unauthenticated(credential: str, problem: str) -> Iterator[Failure]:
    """Require that the block fails because of this credential."""
    with fails(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER") as failure:
        yield failure
    assert failure.metadata == {"credential": credential, "problem": problem}


def test_without_identities_a_method_is_not_wrapped() -> None:
    async def call(request: Any, context: Any) -> None:
        del request, context

    interceptor = AuthenticationInterceptor(None, lambda _path, _caller: None, ())
    assert interceptor.wrap(Method("/commerce.X/Y", False, False, None), call) is call  # noqa: FBT003 - positional fields


# Who is known


async def test_the_caller_is_the_actor_of_events_and_entries_and_in_the_log(known: Known, log: Log) -> None:
    for metadata, name in ((known.billing, "key:billing"), ((known.services.bearer(),), "jwt:mesh:billing")):
        user_id = await known.create_user(metadata)
        assert await known.actor_of(user_id) == name
        grant = users_pb.GrantCreditRequest(user_id=user_id, amount=Money(currency_code="EUR", units=3))
        await known.clients.users.GrantCredit(grant, metadata=metadata)
        listed = await known.clients.users.ListCreditEntries(
            users_pb.ListCreditEntriesRequest(user_id=user_id), metadata=metadata
        )
        assert [entry.actor for entry in listed.entries] == [name]
        order = orders_pb.CreateOrderRequest(order=new_order(user_id))
        created = await known.clients.orders.CreateOrder(order, metadata=metadata)
        events = orders_pb.ListOrderEventsRequest(order_id=created.order.id)
        answer = await known.clients.orders.ListOrderEvents(events, metadata=metadata)
        assert [event.actor for event in answer.events] == [name]
        line = await log.line(event="call", method="/commerce.orders.v1.OrderService/CreateOrder", caller=name)
        assert line["code"] == "OK"


async def test_the_caller_of_an_import_is_the_actor_of_its_users(known: Known) -> None:
    user = new_user()
    requests = [
        users_pb.ImportUsersRequest(config=UserImportConfig()),
        users_pb.ImportUsersRequest(row=UserImportRow(email=user.email, username=user.username)),
    ]
    await known.clients.users.ImportUsers(iter(requests), metadata=known.shop)
    answer = await known.clients.users.GetUser(users_pb.GetUserRequest(email=user.email), metadata=known.shop)
    assert await known.actor_of(answer.user.id) == "key:shop"


async def test_a_caller_without_a_credential_is_refused_in_every_method(known: Known, log: Log) -> None:
    clients = known.clients
    with unauthenticated("none", "missing") as failure:
        await clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))
    assert failure.message == (
        "the caller sent no credential; this server accepts a token as `authorization: Bearer ...` or an API key as"
        " `x-api-key`"
    )
    with unauthenticated("none", "missing"):
        await clients.users.ImportUsers(iter([users_pb.ImportUsersRequest(config=UserImportConfig())]))
    with unauthenticated("none", "missing"):
        async for _ in clients.orders.WatchOrders(orders_pb.WatchOrdersRequest()):
            pass
    line = await log.line(event="call", method="/commerce.users.v1.UserService/GetUser")
    assert (line["code"], line.get("caller")) == ("UNAUTHENTICATED", None)


async def test_a_refused_call_writes_nothing(known: Known) -> None:
    before = await known.own.versions()
    request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD)
    with unauthenticated("none", "missing"):
        await known.clients.users.CreateUser(request)
    assert await known.own.versions() == before


async def test_health_needs_no_caller(known: Known) -> None:
    assert (await known.clients.health.Check(HealthCheckRequest())).status


async def test_a_wrong_credential_is_refused_even_beside_a_right_one(known: Known) -> None:
    request = users_pb.GetUserRequest(id=str(uuid4()))
    token = known.services.bearer()
    for metadata, credential, problem in (
        ((*known.billing, ("authorization", "Bearer x")), "bearer token", "unknown"),
        ((*known.billing, ("authorization", "Basic YTpi")), "bearer token", "unknown"),
        ((token, ("x-api-key", "x")), "API key", "unknown"),
        # Also when the token is known from the call before.
        ((token, ("x-api-key", "x")), "API key", "unknown"),
        ((*known.billing, known.services.bearer(exp=1)), "bearer token", "expired"),
        ((*known.billing, known.services.bearer(aud="other")), "bearer token", "unknown"),
    ):
        with unauthenticated(credential, problem) as failure:
            await known.clients.users.GetUser(request, metadata=metadata)
        assert "eyJ" not in failure.message


async def test_a_token_of_a_service_comes_before_an_api_key(known: Known) -> None:
    user_id = await known.create_user((*known.billing, known.services.bearer(sub="first")))
    assert await known.actor_of(user_id) == "jwt:mesh:first"


# What belongs to a caller


async def test_a_stored_answer_is_only_for_the_caller_who_got_it(known: Known) -> None:
    request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD, request_id=str(uuid4()))
    create = known.clients.users.CreateUser
    first = await create(request, metadata=known.billing)
    assert await create(request, metadata=known.billing) == first
    # For another caller it is a new request, which meets the user of the first.
    with fails(StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS"):
        await create(request, metadata=known.shop)
    with unauthenticated("none", "missing"):
        await create(request)
    order = orders_pb.CreateOrderRequest(order=new_order(first.user.id), request_id=str(uuid4()))
    place = known.clients.orders.CreateOrder
    mine = await place(order, metadata=known.billing)
    others = await place(order, metadata=known.shop)
    assert mine.order.id != others.order.id
    assert await place(order, metadata=known.shop) == others


async def test_a_page_token_is_only_for_the_caller_who_got_it(known: Known) -> None:
    for _ in range(2):
        await known.create_user(known.billing)
    request = users_pb.ListUsersRequest(page_size=1)
    first = await known.clients.users.ListUsers(request, metadata=known.billing)
    request.page_token = first.next_page_token
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await known.clients.users.ListUsers(request, metadata=known.shop)
    second = await known.clients.users.ListUsers(request, metadata=known.billing)
    assert second.users[0].id != first.users[0].id


async def test_a_cursor_is_only_for_the_caller_who_got_it(known: Known) -> None:
    watch = known.clients.users.WatchUsers
    stream = watch(users_pb.WatchUsersRequest(now=True), metadata=known.billing)
    cursor = (await anext(aiter(stream))).cursor
    stream.cancel()
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_CURSOR"):
        await anext(aiter(watch(users_pb.WatchUsersRequest(cursor=cursor), metadata=known.shop)))
    again = watch(users_pb.WatchUsersRequest(cursor=cursor), metadata=known.billing)
    assert (await anext(aiter(again))).cursor
    again.cancel()


# Users for whom a caller acts


async def test_a_token_of_a_user_names_the_user_for_whom_the_caller_acts(known: Known, log: Log) -> None:
    user_id = await known.create_user(known.billing)
    token = known.users.bearer(sub=user_id)
    for metadata, name in (((token,), f"jwt:accounts:{user_id}"), ((*known.billing, token), "key:billing")):
        order = orders_pb.CreateOrderRequest(order=new_order(user_id))
        created = (await known.clients.orders.CreateOrder(order, metadata=metadata)).order
        await known.clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=created.id), metadata=metadata)
        await known.clients.orders.AddOrderTags(
            orders_pb.AddOrderTagsRequest(id=created.id, tags=["gift"]), metadata=metadata
        )
        listing = orders_pb.ListOrderEventsRequest(order_id=created.id)
        listed = await known.clients.orders.ListOrderEvents(listing, metadata=metadata)
        assert [(event.actor, event.on_behalf_of) for event in listed.events] == [(name, user_id)] * 3
        grant = users_pb.GrantCreditRequest(user_id=user_id, amount=Money(currency_code="EUR", units=3))
        await known.clients.users.GrantCredit(grant, metadata=metadata)
        listing_credit = users_pb.ListCreditEntriesRequest(user_id=user_id)
        entries = (await known.clients.users.ListCreditEntries(listing_credit, metadata=metadata)).entries
        assert (entries[0].actor, entries[0].on_behalf_of) == (name, user_id)
        method = "/commerce.orders.v1.OrderService/AddOrderTags"
        await log.line(event="call", method=method, caller=name, on_behalf_of=user_id)


async def test_a_caller_that_acts_for_itself_acts_for_nobody_else(known: Known) -> None:
    user_id = await known.create_user(known.billing)
    watch = known.clients.users.WatchUsers(
        users_pb.WatchUsersRequest(earliest=True, user_ids=[user_id]), metadata=known.billing
    )
    event = (await anext(aiter(watch))).event
    watch.cancel()
    assert (event.user_id, event.actor, event.on_behalf_of) == (user_id, "key:billing", "")


async def test_several_orders_of_one_statement_have_their_own_callers(known: Known) -> None:
    user_id = await known.create_user(known.billing)
    callers = [known.billing, known.shop, (*known.billing, known.users.bearer(sub=user_id))]
    order = orders_pb.CreateOrderRequest(order=new_order(user_id))
    place = known.clients.orders.CreateOrder
    placed = await asyncio.gather(*(place(order, metadata=metadata) for metadata in callers * 10))
    rows = await known.own.connection.fetch(
        "SELECT aggregate_id, actor, on_behalf_of FROM events WHERE aggregate_id = ANY($1)",
        [answer.order.id for answer in placed],
    )
    found = {str(row["aggregate_id"]): (row["actor"], row["on_behalf_of"]) for row in rows}
    expected = [("key:billing", None), ("key:shop", None), ("key:billing", UUID(user_id))] * 10
    assert [found[answer.order.id] for answer in placed] == expected


async def test_what_belongs_to_a_caller_belongs_to_it_and_one_user(known: Known) -> None:
    user_id, other_id = [await known.create_user(known.billing) for _ in range(2)]
    mine: Metadata = (*known.billing, known.users.bearer(sub=user_id))
    others: Metadata = (*known.billing, known.users.bearer(sub=other_id))
    request = users_pb.ListUsersRequest(page_size=1)
    request.page_token = (await known.clients.users.ListUsers(request, metadata=mine)).next_page_token
    assert (await known.clients.users.ListUsers(request, metadata=mine)).users
    for metadata in (others, known.billing):
        with fails(StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
            await known.clients.users.ListUsers(request, metadata=metadata)
    order = orders_pb.CreateOrderRequest(order=new_order(user_id), request_id=str(uuid4()))
    place = known.clients.orders.CreateOrder
    assert len({(await place(order, metadata=metadata)).order.id for metadata in (mine, mine, others)}) == 2


async def test_only_a_caller_with_the_permission_acts_for_a_user(known: Known) -> None:
    user_id = await known.create_user(known.billing)
    for_user = (*known.billing, ("x-on-behalf-of", user_id))
    with fails(StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as failure:
        await known.create_user(for_user)
    assert failure.metadata == {"permission": "act_for_users", "identity": "key:billing"}
    order = orders_pb.CreateOrderRequest(order=new_order(user_id))
    metadata = (*known.shop, ("x-on-behalf-of", user_id))
    created = (await known.clients.orders.CreateOrder(order, metadata=metadata)).order
    listing = orders_pb.ListOrderEventsRequest(order_id=created.id)
    listed = await known.clients.orders.ListOrderEvents(listing, metadata=known.billing)
    assert [(event.actor, event.on_behalf_of) for event in listed.events] == [("key:shop", user_id)]


async def test_the_user_for_whom_a_caller_acts_must_be_a_user_and_that_of_the_token(known: Known) -> None:
    user_id = await known.create_user(known.billing)
    token = known.users.bearer(sub=user_id)
    await known.create_user((token, ("x-on-behalf-of", user_id.upper())))
    for sent in ("", "bob", f"{{{user_id}}}", str(uuid4())):
        with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="x-on-behalf-of"):
            await known.create_user((token, ("x-on-behalf-of", sent)))


# Changes while the server runs


async def test_a_revoked_key_is_refused_and_a_new_one_accepted(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    async with knowing(postgres_url, template_url, tmp_path) as known:
        await known.create_user(known.billing)
        (new,) = write_keys(tmp_path / "keys.toml", "billing")

        await known.accepts(new)
        with unauthenticated("API key", "unknown"):
            await known.create_user(known.billing)


async def test_a_removed_key_of_an_issuer_ends_the_trust_in_its_tokens(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    async with knowing(postgres_url, template_url, tmp_path) as known:
        old: Metadata = (known.services.bearer(),)
        await known.create_user(old)
        known.services.add_key("key-2")
        del known.services.keys["key-1"]
        (tmp_path / "mesh.json").write_text(known.services.jwks())
        await known.create_user((known.services.bearer(),))
        with unauthenticated("bearer token", "unknown"):
            await known.create_user(old)


async def test_a_stream_ends_when_its_credential_is_no_longer_valid(
    postgres_url: str, template_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.rpc.interceptors.authentication.RECHECK_SECONDS", 0.05)
    async with knowing(postgres_url, template_url, tmp_path) as known:
        watch = known.clients.users.WatchUsers
        ending = aiter(watch(users_pb.WatchUsersRequest(now=True), metadata=known.shop))
        staying = aiter(watch(users_pb.WatchUsersRequest(now=True), metadata=(known.services.bearer(),)))
        await anext(ending)
        await anext(staying)
        (billing,) = write_keys(tmp_path / "keys.toml", "billing")
        with unauthenticated("API key", "unknown"):
            await anext(ending)
        # The other one goes on.
        await known.accepts(billing)
        assert (await anext(staying)).event.user_id


@pytest.mark.parametrize(
    ("setting", "content", "problem"),
    [
        ("api_keys_file", "x = 1", "COMMERCE_API_KEYS_FILE: the file of API keys must have nothing but"),
        ("jwt_issuers_file", "x = 1", "COMMERCE_JWT_ISSUERS_FILE: the file of issuers must have a table"),
        ("jwt_issuers_file", None, "COMMERCE_JWT_ISSUERS_FILE: the file of issuers cannot be read"),
        (
            "jwt_issuers_file",
            TokenIssuer().table("none.json"),
            "COMMERCE_JWT_ISSUERS_FILE: issuer 'accounts': the key set cannot be read",
        ),
    ],
)
async def test_a_server_does_not_start_with_files_that_cannot_be_used(
    database_url: str, tmp_path: Path, setting: str, content: str | None, problem: str
) -> None:
    path = tmp_path / "file.toml"
    if content is not None:
        path.write_text(content)
    settings = {"DATABASE_URL": database_url, "port": 0, "policy_file": allowing_all(tmp_path), setting: path}
    server = Server(load(ServerSettings, **settings))
    with pytest.raises(StartError, match=problem):
        await server.start()


async def test_a_server_that_knows_its_callers_needs_a_policy(database_url: str, tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.toml", "billing")
    settings = {"DATABASE_URL": database_url, "port": 0, "api_keys_file": tmp_path / "keys.toml"}
    with pytest.raises(StartError, match=r"^no policy says what the callers may do: set COMMERCE_POLICY_FILE$"):
        await Server(load(ServerSettings, **settings)).start()


async def test_certificates_name_nobody_if_no_client_is_asked_for_one(database_url: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": database_url, "port": 0, "policy_file": allowing_all(tmp_path)}
    server = Server(load(ServerSettings, **settings, client_certificates="spiffe"))
    with pytest.raises(StartError, match="COMMERCE_CLIENT_CERTIFICATES needs COMMERCE_TLS_CLIENT_CA_FILE"):
        await server.start()


async def test_a_server_starts_although_the_keys_of_an_issuer_cannot_be_fetched(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    issuer = TokenIssuer()
    issuers = tmp_path / "issuers.toml"
    issuers.write_text(issuer.table("http://127.0.0.1:1/jwks.json"))
    (key,) = write_keys(tmp_path / "keys.toml", "billing")
    settings = {"jwt_issuers_file": issuers, "api_keys_file": tmp_path / "keys.toml"}
    settings["policy_file"] = allowing_all(tmp_path)
    async with own_server(postgres_url, template_url, **settings) as own:
        create = own.clients.users.CreateUser
        request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD)
        with fails(StatusCode.UNAVAILABLE, "ISSUER_UNAVAILABLE"):
            await create(request, metadata=(issuer.bearer(),))
        assert (await create(request, metadata=(("x-api-key", key),))).user.id
