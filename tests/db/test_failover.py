"""What a PostgreSQL that takes over leaves behind: connections to a replica, and a sequence that has forgotten."""

import asyncpg
import commerce.users.v1.user_service_pb2 as users_pb

from tests.conftest import running_server
from tests.faults import observing
from tests.support import connect


async def make_new_sessions(connection: asyncpg.Connection, *, read_only: bool) -> None:
    """Let new sessions be as on a replica, or no longer; those that are there stay as they are."""
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_read_only = '{read_only}'")


async def test_connections_to_a_replica_are_given_up(database_url: str) -> None:
    async with observing(database_url) as seen, running_server(database_url) as server, connect(server.port) as clients:
        await seen.connection.execute("SET default_transaction_read_only = off")
        user = await clients.create_user()
        # As a balancer does that does not know the new leader yet.
        await make_new_sessions(seen.connection, read_only=True)
        await seen.terminate(await seen.backends())
        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        await make_new_sessions(seen.connection, read_only=False)
        order = await clients.create_order(user.id)
        assert await seen.count("orders", "order_number = $1", order.order_number) == 1


async def test_an_order_number_that_is_given_out_again_is_passed_over(database_url: str) -> None:
    async with observing(database_url) as seen, running_server(database_url) as first, connect(first.port) as clients:
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        # As after a crash that the sequence's last record did not survive.
        await seen.connection.execute("SELECT setval('order_number_seq', 1, false)")
        async with running_server(database_url) as second, connect(second.port) as others:
            other = await others.create_order(user.id)
        assert other.order_number != order.order_number
