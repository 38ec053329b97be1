"""Connections as DATABASE_URL asks for them, and what is reported when there is none."""

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import text

from service.config import DatabaseSettings, SettingsError, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations.migrate import upgrade
from service.db.operations.readiness import readiness_problem
from tests.support.databases import driver_connection
from tests.support.processes import free_port, run_command
from tests.support.proxies import Proxy, listening

PASSWORD = "hunter2"  # noqa: S105 - what must not be shown


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    """A TCP port of the database, which listens only on a socket itself."""
    async with listening(Proxy(database_url)) as proxy:
        yield proxy


def parts(url: str) -> tuple[str, str]:
    """Return the user and the name of a database."""
    found = async_url(url)
    return str(found.username), str(found.database)


async def setting(url: str, name: str) -> str:
    """Return a setting of a connection that the service opens."""
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        async with engine.connect() as connection:
            return str(await connection.scalar(text(f"SELECT current_setting('{name}')")))
    finally:
        await engine.dispose()


async def problem(url: str) -> str:
    """Return what readiness reports."""
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        found = await readiness_problem(engine)
    finally:
        await engine.dispose()
    assert found
    assert "\n" not in found
    assert PASSWORD not in found
    return found


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("application_name=shop", "application_name", "shop"),
        ("options=-c%20search_path%3Dshop%20-c%20work_mem%3D5MB", "work_mem", "5MB"),
        ("options=-csearch_path%3Dshop", "search_path", "shop"),
        ("connect_timeout=10", "application_name", "commerce"),
        ("connect_timeout=0", "application_name", "commerce"),
        ("channel_binding=prefer&sslmode=prefer", "application_name", "commerce"),
        ("sslmode=disable&target_session_attrs=read-write\n", "application_name", "commerce"),
    ],
)
async def test_parameters_work_as_with_other_programs(proxy: Proxy, query: str, name: str, value: str) -> None:
    assert await setting(f"{proxy.url}?{query}", name) == value


async def test_the_first_host_that_answers_is_used(proxy: Proxy, database_url: str) -> None:
    user, database = parts(database_url)
    url = f"postgresql://{user}@127.0.0.1:{free_port()},127.0.0.1:{proxy.port}/{database}"
    assert await setting(url, "application_name") == "commerce"


async def test_a_host_may_be_an_encoded_folder_of_a_socket(database_url: str) -> None:
    user, database = parts(database_url)
    folder = quote(str(async_url(database_url).query["host"]), safe="")
    assert await setting(f"postgresql://{user}@{folder}/{database}\n", "application_name") == "commerce"


async def test_migrations_take_the_parameters_too(empty_database_url: str) -> None:
    async with listening(Proxy(empty_database_url)) as proxy:
        url = f"{proxy.url}?connect_timeout=20&application_name=migrating&channel_binding=prefer"
        engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
        assert await upgrade(engine, "0001")
        await engine.dispose()


async def test_a_refused_connection_is_reported_with_its_address() -> None:
    port = free_port()
    found = await problem(f"postgresql://ada:{PASSWORD}@127.0.0.1:{port}/shop")
    assert f"127.0.0.1:{port}: the connection was refused" in found


async def test_an_unknown_host_is_reported_by_its_name() -> None:
    found = await problem(f"postgresql://ada:{PASSWORD}@nowhere.invalid:5433/shop?connect_timeout=20")
    assert "nowhere.invalid:5433: the name of the host cannot be resolved" in found


async def test_a_missing_socket_is_reported_with_its_folder(tmp_path: Path) -> None:
    found = await problem(f"postgresql://ada:{PASSWORD}@/shop?host={tmp_path}")
    assert f"the socket in {tmp_path}, port 5432: there is no socket" in found


async def test_a_host_without_tls_is_reported(proxy: Proxy) -> None:
    found = await problem(f"{proxy.url}?sslmode=require")
    assert f"127.0.0.1:{proxy.port}: it refuses TLS" in found


async def test_a_host_that_does_not_answer_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = await problem(f"postgresql://ada:{PASSWORD}@127.0.0.1:{port}/shop?connect_timeout=1")
    assert f"127.0.0.1:{port}: it did not answer in time" in found


async def test_several_hosts_that_refuse_are_all_named() -> None:
    ports = free_port(), free_port()
    found = await problem(f"postgresql://ada:{PASSWORD}@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/shop")
    assert f"127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}: the connection was refused" in found


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("options=-c%20nonsense%3D1", 'unrecognized configuration parameter "nonsense"'),
        ("options=nonsense", "invalid command-line argument for server process: nonsense"),
        ("target_session_attrs=standby", "None of the hosts match the target attribute requirement"),
        ("sslmode=disable&sslnegotiation=direct", "direct TLS requires sslmode=require"),
    ],
)
async def test_options_that_cannot_be_fulfilled_are_reported(proxy: Proxy, query: str, reason: str) -> None:
    found = await problem(f"{proxy.url}?{query}")
    assert f"127.0.0.1:{proxy.port}: " in found
    assert reason in found


async def test_the_variables_of_libpq_are_used_and_reported(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(free_port()))
    found = await problem(f"postgresql://ada:{PASSWORD}@/shop")
    assert f"127.0.0.1:{os.environ['PGPORT']}: the connection was refused" in found
    # A port in the URL counts more, also if it is the usual one; without one, that of the variable counts.
    assert async_url("postgresql://db:5432/shop").port == 5432
    monkeypatch.setenv("PGPORT", str(proxy.port))
    user, database = parts(proxy.url)
    assert await setting(f"postgresql://{user}@127.0.0.1/{database}", "application_name") == "commerce"
    monkeypatch.setenv("PGPORT", "nonsense")
    with pytest.raises(SettingsError, match="PGPORT is not a number from 1 to 65535"):
        async_url("postgresql://db/shop")
    assert async_url("postgresql://db:5433/shop").port == 5433
    assert "invalid literal" in await problem(f"postgresql://ada:{PASSWORD}@/shop")


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "[::1]"])
async def test_any_host_that_cannot_be_reached_is_reported(host: str) -> None:
    port = free_port()
    assert f"{host}:{port}: the " in await problem(f"postgresql://ada:{PASSWORD}@{host}:{port}/shop")


async def test_an_unknown_user_is_reported_with_the_address(proxy: Proxy) -> None:
    found = await problem(
        str(async_url(proxy.url).set(username="no_such_user", password=PASSWORD)).replace("***", PASSWORD)
    )
    assert "refuses the user or the password" in found
    assert f"127.0.0.1:{proxy.port}" in found


async def test_a_missing_right_is_one_line(empty_database_url: str) -> None:
    async with driver_connection(empty_database_url) as connection:
        role = f"guest_{await connection.fetchval('SELECT pg_backend_pid()')}"
        await connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            url = async_url(empty_database_url).set(username=role).render_as_string(hide_password=False)
            finished = await run_command("migrate", database_url=url)
        finally:
            await connection.execute(f"DROP ROLE {role}")
    assert finished.status == 1
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert "lacks a right: permission denied for schema public" in finished.stderr
