"""Databases whose rows make large answers."""

from tests.support.databases import driver_connection

_USERS = """
SET session_replication_role = replica;
WITH made AS (
    INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time)
    SELECT uuidv7(), n || '@example.com', 'user.' || n, 'Ada', false, 'ACTIVE', 1, now(), now()
    FROM generate_series(1, $1) n RETURNING id
)
INSERT INTO user_profiles (user_id, bio, avatar_url) SELECT id, repeat('x', 1000), '' FROM made
"""


async def insert_users(database_url: str, count: int) -> None:
    """Insert users with profiles of a kilobyte, without a server."""
    async with driver_connection(database_url) as connection:
        await connection.execute(_USERS.replace("$1", str(count)))
