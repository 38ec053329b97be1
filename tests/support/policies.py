"""Servers with a policy, and clients with the identities that it names."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from grpc_health.v1.health_pb2_grpc import HealthStub

from service.config import ServerSettings, load
from service.rpc.identity.key_file import StoredKey, format_keys, new_key
from service.rpc.identity.permissions import ACT_FOR_USERS, permissions
from service.server import Server
from tests.support.clients import Clients
from tests.support.databases import cloned, driver_connection
from tests.support.passwords import FAST_PASSWORDS

EVERYTHING = [*permissions()]
EVERYTHING_OWN = [*(f"{name}:own" for name, limited in permissions().items() if limited), ACT_FOR_USERS]


def policy_of(permissions_of: Mapping[str, Sequence[str]]) -> str:
    """Return the text of a policy that gives each identity these permissions."""
    roles = {f"role-{index}": names for index, names in enumerate(permissions_of.values())}
    lines = ["[roles]", *(f"{role} = {json.dumps(list(names))}" for role, names in roles.items()), "[identities]"]
    lines += [f'{json.dumps(name)} = ["{role}"]' for name, role in zip(permissions_of, roles, strict=True)]
    return "\n".join(lines) + "\n"


class Guarded:
    """A server with a policy and a database of its own.

    Attributes:
        server: the server.
        connection: a connection to its database.
        database_url: the URL of its database.
    """

    def __init__(self, server: Server, file: Path, database_url: str, connection: asyncpg.Connection) -> None:
        self.server = server
        self.database_url = database_url
        self.connection = connection
        self._file = file
        # By the name of the caller.
        self._keys: dict[str, str] = {}
        self._stored: list[StoredKey] = []
        self._channels = AsyncExitStack()
        self._clients: dict[tuple[str, str | None], Clients] = {}

    async def clients_of(self, key: str, user_id: str | None = None) -> Clients:
        """Return clients with the identity `key:…`, which acts for a user if one is given."""
        if (key, user_id) not in self._clients:
            metadata = [("x-api-key", self.key_of(key)), *([("x-on-behalf-of", user_id)] if user_id else [])]
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}", interceptors=_adding(metadata))
            await self._channels.enter_async_context(channel)
            clients = Clients(channel, UserServiceStub(channel), OrderServiceStub(channel), HealthStub(channel))
            self._clients[key, user_id] = clients
        return self._clients[key, user_id]

    def key_of(self, name: str) -> str:
        """Return the API key of a caller."""
        if name not in self._keys:
            self._keys[name], stored = new_key(name, datetime.now(UTC))
            self._stored.append(stored)
            write_key_file(self._file.parent, self._stored)
            assert self.server._identities is not None  # noqa: SLF001
            assert self.server._identities.keys is not None  # noqa: SLF001
            self.server._identities.keys.reload()  # noqa: SLF001
        return self._keys[name]

    def change_policy(self, permissions_of: Mapping[str, Sequence[str]]) -> None:
        """Write a policy, and let the server read it now."""
        new = self._file.with_suffix(".new")
        new.write_text(policy_of(permissions_of))
        new.replace(self._file)
        assert self.server._policies is not None  # noqa: SLF001
        self.server._policies.reload()  # noqa: SLF001

    async def close(self) -> None:
        """Close all channels."""
        await self._channels.aclose()


@asynccontextmanager
async def guarded_server(
    postgres_url: str, template_url: str, folder: Path, permissions_of: Mapping[str, Sequence[str]], **settings: object
) -> AsyncIterator[Guarded]:
    """Run a server whose policy gives each identity these permissions until the block ends."""
    file = folder / "policy.toml"
    file.write_text(policy_of(permissions_of))
    async with cloned(postgres_url, template_url) as url, driver_connection(url) as connection:
        keys = write_key_file(folder, [])
        values = {"DATABASE_URL": url, "port": 0, "policy_file": file, "api_keys_file": keys}
        server = Server(load(ServerSettings, **values, **FAST_PASSWORDS, **settings))
        await server.start()
        guarded = Guarded(server, file, url, connection)
        try:
            yield guarded
        finally:
            await guarded.close()
            await server.stop(grace=1)


def write_key_file(folder: Path, keys: Sequence[StoredKey]) -> Path:
    """Replace the file of API keys in a folder, and return its path."""
    path = folder / "keys.toml"
    new = path.with_suffix(".new")
    new.write_text(format_keys(keys))
    new.replace(path)
    return path


def _adding(metadata: Sequence[tuple[str, str]]) -> list[grpc.aio.ClientInterceptor]:
    """Return client interceptors that add metadata to every call."""

    # The stub does not say that the details are a named tuple.
    async def intercept(continuation: Any, details: Any, request: Any) -> Any:
        sent = grpc.aio.Metadata(*(details.metadata or ()), *metadata)
        return await continuation(details._replace(metadata=sent), request)

    kinds = {
        grpc.aio.UnaryUnaryClientInterceptor: "intercept_unary_unary",
        grpc.aio.UnaryStreamClientInterceptor: "intercept_unary_stream",
        grpc.aio.StreamUnaryClientInterceptor: "intercept_stream_unary",
    }
    return [type("_Adding", (kind,), {name: staticmethod(intercept)})() for kind, name in kinds.items()]
