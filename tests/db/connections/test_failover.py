"""Failover from one PostgreSQL to another, as callers see it, and its traces in the data."""

from asyncio import StreamReader, StreamWriter

import asyncpg
import commerce.users.v1.user_service_pb2 as users_pb

from tests.support.databases import observing
from tests.support.proxies import Proxy, listening
from tests.support.servers import serving_clients

# The message "the database system is shutting down", after which PostgreSQL closes the connection.
LAST_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


class DyingProxy(Proxy):
    """A proxy that announces PostgreSQL's shutdown on its connections without closing them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._callers: list[StreamWriter] = []

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward PostgreSQL's answers to the service."""
        self._callers.append(writer)
        await super().back(reader, writer)

    def say_last_words(self) -> None:
        """Send the shutdown message on all connections."""
        for caller in self._callers:
            caller.write(b"E" + (len(LAST_WORDS) + 4).to_bytes(4) + LAST_WORDS)
        self._callers.clear()


async def make_new_sessions(connection: asyncpg.Connection, *, read_only: bool) -> None:
    """Make new sessions read-only, as on a replica, or writable again; open sessions do not change."""
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_read_only = '{read_only}'")


async def test_connections_to_a_replica_are_discarded(database_url: str) -> None:
    async with (
        observing(database_url) as observer,
        serving_clients(database_url) as clients,
    ):
        await observer.connection.execute("SET default_transaction_read_only = off")
        user = await clients.create_user()
        # Like a load balancer that does not know the new leader yet.
        await make_new_sessions(observer.connection, read_only=True)
        await observer.terminate(await observer.backends())
        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        await make_new_sessions(observer.connection, read_only=False)
        order = await clients.create_order(user.id)
        assert await observer.count("orders", "order_number = $1", order.order_number) == 1


async def test_an_order_number_that_the_sequence_returns_again_is_skipped(database_url: str) -> None:
    async with (
        observing(database_url) as observer,
        serving_clients(database_url) as clients,
    ):
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        # As after a crash in which the sequence's last WAL record was lost.
        await observer.connection.execute("SELECT setval('order_number_seq', 1, false)")
        async with serving_clients(database_url) as others:
            other = await others.create_order(user.id)
        assert other.order_number != order.order_number


async def test_connections_with_an_announced_shutdown_are_discarded(database_url: str) -> None:
    async with (
        listening(DyingProxy(database_url)) as proxy,
        serving_clients(proxy.url) as clients,
    ):
        user = await clients.create_user()
        proxy.say_last_words()
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user.id == user.id
        proxy.say_last_words()
        assert (await clients.create_order(user.id)).user_id == user.id
