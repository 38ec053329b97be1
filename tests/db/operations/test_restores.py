"""Databases that are dumped by pg_dump and restored by psql."""

import os
from pathlib import Path
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from grpc import StatusCode

from service.db.writes.encoded_messages import MESSAGE_VERSION, MESSAGE_VERSION_SETTING
from tests.support.clients import new_user
from tests.support.databases import driver_connection
from tests.support.dumps import dump, restore
from tests.support.failures import fails
from tests.support.methods import MUTATIONS, call
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT
from tests.support.requests import GOOD_REQUESTS
from tests.support.servers import OwnServer

# What docs/operations/dump-and-restore.md says about a restore of the data alone.
DATA_ONLY = ("--data-only", "--exclude-table=alembic_version")
EMPTY = "TRUNCATE signing_keys, swept_events"
PGOPTIONS = f"-c {MESSAGE_VERSION_SETTING}={MESSAGE_VERSION}"


@pytest.fixture(scope="module")
async def filled(own: OwnServer) -> OwnServer:
    """A database with rows in every table."""
    for method in MUTATIONS:
        await call(own.clients.channel, method, await GOOD_REQUESTS[method](own.clients))
    request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD, request_id=str(uuid4()))
    await own.clients.users.CreateUser(request)
    await own.connection.execute("INSERT INTO relay_cursors (name, xid, position) VALUES ('default', '3', 1)")
    await own.connection.execute("INSERT INTO maintenance_runs VALUES ('expired_holds', 1, 0, 1, now())")
    with fails(StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"):
        await own.clients.users.VerifyPassword(users_pb.VerifyPasswordRequest(username="nobody", password=PASSWORD))
    assert all((await own.rows()).values())
    return own


async def contents_of(own: OwnServer, url: str) -> dict[str, tuple[int, int]]:
    async with driver_connection(url) as connection:
        return await OwnServer(own.clients, url, connection).contents()


async def test_the_data_alone_is_restored_into_a_migrated_database(
    filled: OwnServer, database_url: str, tmp_path: Path
) -> None:
    await dump(filled.database_url, tmp_path / "data.sql", *DATA_ONLY)
    environment = os.environ | {"PGOPTIONS": PGOPTIONS}
    await restore(database_url, tmp_path / "data.sql", "--command", EMPTY, environment=environment)
    assert await contents_of(filled, database_url) == await filled.contents()
    # The next order number, and the next position of an event.
    sequences = "SELECT sequencename, last_value FROM pg_sequences ORDER BY sequencename"
    async with driver_connection(database_url) as connection:
        assert await connection.fetch(sequences) == await filled.connection.fetch(sequences)


async def test_a_whole_dump_is_restored_into_an_empty_database(
    filled: OwnServer, empty_database_url: str, tmp_path: Path
) -> None:
    await dump(filled.database_url, tmp_path / "all.sql")
    await restore(empty_database_url, tmp_path / "all.sql")
    assert await contents_of(filled, empty_database_url) == await filled.contents()


async def test_every_function_finds_its_tables_with_any_search_path(filled: OwnServer) -> None:
    # Functions with a body in standard SQL (prosqlbody) refer to objects, not to names.
    query = r"""
        WITH own AS (
            SELECT proname AS name, proconfig, prosqlbody, regexp_replace(prosrc, '--[^\n]*', '', 'g') AS body
            FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
        ), names AS (
            SELECT relname AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace
            UNION ALL SELECT name FROM own
        )
        SELECT name FROM own
        WHERE prosqlbody IS NULL AND array_to_string(proconfig, ' ') ~ 'search_path=' IS NOT TRUE
          AND EXISTS (SELECT FROM names WHERE own.body ~ ('\m' || names.name || '\M'))
    """
    assert await filled.connection.fetch(query) == []


def test_the_commands_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs/operations/dump-and-restore.md").read_text()
    for part in (" ".join(DATA_ONLY), EMPTY, f"PGOPTIONS='{PGOPTIONS}'"):
        assert part in text
