"""What callers meet while one PostgreSQL takes over from another, and what that leaves behind."""

from asyncio import StreamReader, StreamWriter

import asyncpg
import commerce.users.v1.user_service_pb2 as users_pb

from tests.support.databases import observing
from tests.support.proxies import Proxy, listening
from tests.support.servers import serving_clients

# "The database system is shutting down", which ends a connection.
LAST_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


class DyingProxy(Proxy):
    """A PostgreSQL that says why it ends a connection, and does not get as far as to close it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._callers: list[StreamWriter] = []

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bring PostgreSQL's answers to the service."""
        self._callers.append(writer)
        await super().back(reader, writer)

    def say_last_words(self) -> None:
        """Tell all connections that this is the end."""
        for caller in self._callers:
            caller.write(b"E" + (len(LAST_WORDS) + 4).to_bytes(4) + LAST_WORDS)
        self._callers.clear()


async def make_new_sessions(connection: asyncpg.Connection, *, read_only: bool) -> None:
    """Let new sessions be as on a replica, or no longer; those that are there stay as they are."""
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_read_only = '{read_only}'")


async def test_connections_to_a_replica_are_given_up(database_url: str) -> None:
    async with (
        observing(database_url) as observer,
        serving_clients(database_url) as clients,
    ):
        await observer.connection.execute("SET default_transaction_read_only = off")
        user = await clients.create_user()
        # As a balancer does that does not know the new leader yet.
        await make_new_sessions(observer.connection, read_only=True)
        await observer.terminate(await observer.backends())
        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        await make_new_sessions(observer.connection, read_only=False)
        order = await clients.create_order(user.id)
        assert await observer.count("orders", "order_number = $1", order.order_number) == 1


async def test_an_order_number_that_is_given_out_again_is_passed_over(database_url: str) -> None:
    async with (
        observing(database_url) as observer,
        serving_clients(database_url) as clients,
    ):
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        # As after a crash that the sequence's last record did not survive.
        await observer.connection.execute("SELECT setval('order_number_seq', 1, false)")
        async with serving_clients(database_url) as others:
            other = await others.create_order(user.id)
        assert other.order_number != order.order_number


async def test_connections_that_were_told_of_their_end_are_given_up(database_url: str) -> None:
    async with (
        listening(DyingProxy(database_url)) as proxy,
        serving_clients(proxy.url) as clients,
    ):
        user = await clients.create_user()
        proxy.say_last_words()
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user.id == user.id
        proxy.say_last_words()
        assert (await clients.create_order(user.id)).user_id == user.id
