"""Limits hold before a request is parsed, and for clients that neither send nor read."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from service.http import exchange, json_messages
from service.http.methods import HttpMethod
from tests.http.conftest import Site, running_site
from tests.support.databases import driver_connection
from tests.support.http_calls import CONNECT, JSON, ORDERS, USERS, error_info
from tests.support.large_rows import insert_users
from tests.support.waiting import eventually

GET_USER = f"{USERS}/GetUser"
BATCH_GET = f"{USERS}/BatchGetUsers"


@asynccontextmanager
async def raw_connection(site: Site) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    client = socket.socket()
    # A small buffer, so that the server soon notices that the client does not read.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)  # noqa: FBT003 - the standard library's
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", site.server.http_port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(path: str, length: int, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", f"content-length: {length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


@pytest.mark.parametrize("headers", [(), ("connect-protocol-version: 1",)], ids=["json", "connect"])
async def test_a_large_body_is_refused_before_it_is_read(site: Site, headers: tuple[str, ...]) -> None:
    async with raw_connection(site) as (reader, writer):
        # Of 100 MB, two are sent.
        writer.write(head(GET_USER, 100_000_000, *headers) + b" " * 2_000_000)
        status = await asyncio.wait_for(reader.readline(), 20)
        assert status.split()[1] in {b"413", b"400"}
        answer = await asyncio.wait_for(reader.readuntil(b"}]}"), 20)
        assert b"the request must have at most 1048576 bytes" in answer


async def test_a_large_body_of_unknown_length_is_refused_too(site: Site) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 64_000

    response = await site.http.post(GET_USER, content=body(), headers=JSON)
    assert response.status_code == 413


async def test_the_client_is_told_to_send_only_what_is_not_too_large(site: Site) -> None:
    async with raw_connection(site) as (reader, writer):
        writer.write(head(GET_USER, 100_000_000, "expect: 100-continue"))
        assert (await reader.readline()).split()[1] == b"413"
    async with raw_connection(site) as (reader, writer):
        writer.write(head(GET_USER, 2, "expect: 100-continue"))
        assert (await reader.readline()).split()[1] == b"100"


async def test_a_request_of_many_values_is_refused_before_it_is_parsed(site: Site) -> None:
    response = await site.http.post(BATCH_GET, json={"ids": ["x"] * json_messages.MAX_VALUES})
    assert response.json()["message"] == f"the request has more than {json_messages.MAX_VALUES} values"
    # Fewer are counted by the rules of their field.
    response = await site.http.post(BATCH_GET, json={"ids": ["x"] * 1001})
    assert response.json()["details"][1]["fieldViolations"][0]["field"] == "ids"


async def test_the_largest_valid_order_is_accepted(site: Site) -> None:
    user = await site.grpc.create_user()
    price = {"currencyCode": "EUR", "units": "1"}
    items = [
        {"productId": f"p{index}" + "x" * 90, "name": "n" * 200, "quantity": 1, "unitPrice": price}
        for index in range(500)
    ]
    response = await site.http.post(f"{ORDERS}/CreateOrder", json={"order": {"userId": user.id, "items": items}})
    assert response.status_code == 200, response.text
    assert len(response.json()["order"]["items"]) == 500


async def test_headers_have_a_maximum_size(site: Site) -> None:
    response = await site.http.post(GET_USER, json={}, headers={"x-filler": "x" * 20_000})
    assert response.status_code == 400


@pytest.mark.parametrize("headers", [{}, CONNECT], ids=["json", "connect"])
async def test_bodies_of_all_requests_have_a_maximum_size_together(
    shared_database_url: str, headers: dict[str, str]
) -> None:
    async with running_site(shared_database_url, max_request_bytes_in_flight=600_000) as site:
        async with raw_connection(site) as (_, writer):
            writer.write(head(GET_USER, 500_001) + b" " * 500_000)
            await eventually(lambda: site.port.requests.used >= 500_000)
            refused = await site.http.post(GET_USER, content=b" " * 500_000, headers={**JSON, **headers})
            assert (refused.status_code, error_info(refused.json())["reason"]) == (429, "OVERLOADED")
            # A small one is not counted.
            assert (await site.http.post(GET_USER, json={"username": "nobody"})).status_code == 404
        await eventually(lambda: site.port.requests.used == 0)


LARGE_PAGE = json.dumps({"pageSize": 1000}).encode()


async def insert_large_page(database_url: str) -> None:
    """Insert users whose page is larger than what the operating system stores for a client that does not read: 4 MB."""
    await insert_users(database_url, 1000)
    async with driver_connection(database_url) as connection:
        await connection.execute("UPDATE user_profiles SET bio = repeat('😀', 1000), avatar_url = repeat('x', 2000)")


@pytest.mark.parametrize("part_bytes", [64 * 1024, 100_000_000], ids=["in_parts", "as_a_whole"])
async def test_a_client_that_does_not_read_is_disconnected(
    database_url: str, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    """The end of a response is not waited for by the application, but by the connection."""
    monkeypatch.setattr(exchange, "_PART_BYTES", part_bytes)
    await insert_large_page(database_url)
    async with (
        running_site(database_url, max_response_bytes=8_000_000, transfer_timeout=0.5) as site,
        raw_connection(site) as (_, writer),
    ):
        writer.write(head(f"{USERS}/ListUsers", len(LARGE_PAGE)) + LARGE_PAGE)
        await eventually(lambda: site.port.open_connections() == 1)
        await eventually(lambda: site.port.open_connections() == 0)
        assert site.port.responses.used == 0


async def test_responses_that_clients_do_not_read_have_a_maximum_size_together(database_url: str) -> None:
    await insert_large_page(database_url)
    request = LARGE_PAGE
    async with running_site(database_url, max_response_bytes=8_000_000, max_unread_response_bytes=15_000_000) as site:
        async with raw_connection(site) as (_, writer), raw_connection(site) as (_, second):
            # One after the other, because gRPC's own limit for responses counts until this one does.
            writer.write(head(f"{USERS}/ListUsers", len(request)) + request)
            await eventually(lambda: site.port.responses.used > 6_000_000)
            second.write(head(f"{USERS}/ListUsers", len(request)) + request)
            await eventually(lambda: site.port.responses.used > 12_000_000)
            refused = await site.http.post(f"{USERS}/ListUsers", content=request, headers=JSON)
            assert (refused.status_code, error_info(refused.json())["reason"]) == (429, "OVERLOADED")
        await eventually(lambda: site.port.responses.used == 0)
        read = await site.http.post(f"{USERS}/ListUsers", content=request, headers=JSON)
        assert len(read.json()["users"]) == 1000


async def test_other_calls_are_answered_while_a_large_response_is_made(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_users(database_url, 1000)
    begun, may_end, convert = threading.Event(), threading.Event(), json_messages.response_json

    def held(method: HttpMethod, response: bytes) -> bytes:
        if len(response) > 100_000:
            begun.set()
            assert may_end.wait(10)
        return convert(method, response)

    monkeypatch.setattr("service.http.conversion.response_json", held)
    async with running_site(database_url) as site:
        listing = asyncio.ensure_future(site.http.post(f"{USERS}/ListUsers", json={"pageSize": 1000}))
        await eventually(begun.is_set)
        other = await site.http.post(GET_USER, json={"username": "user.1"})
        assert (other.status_code, listing.done()) == (200, False)
        may_end.set()
        assert (await listing).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nhost:", head(GET_USER, 10) + b"{"])
async def test_a_client_that_does_not_send_its_request_is_disconnected(shared_database_url: str, sent: bytes) -> None:
    async with (
        running_site(shared_database_url, transfer_timeout=0.3) as site,
        raw_connection(site) as (reader, writer),
    ):
        writer.write(sent)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 20)


async def test_a_client_that_sends_on_and_on_is_disconnected(shared_database_url: str) -> None:
    async with (
        running_site(shared_database_url, transfer_timeout=0.5) as site,
        raw_connection(site) as (reader, writer),
    ):

        async def send() -> None:
            writer.write(b"POST / HTTP/1.1\r\n")
            while True:
                writer.write(b"a: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send(), 20)
        assert reader.at_eof() or reader.exception()


async def test_an_idle_connection_is_closed(shared_database_url: str) -> None:
    async with (
        running_site(shared_database_url, http_keep_alive_timeout=1) as site,
        raw_connection(site) as (reader, writer),
    ):
        body = b'{"username": "nobody"}'
        writer.write(head(GET_USER, len(body)) + body)
        assert (await reader.readline()).split()[1] == b"404"
        # The rest of the response, and the end.
        await asyncio.wait_for(reader.read(), 20)
        await eventually(lambda: site.port.open_connections() == 0)


async def test_connections_have_a_maximum_number(shared_database_url: str) -> None:
    async with running_site(shared_database_url, http_max_connections=2) as site:
        async with raw_connection(site), raw_connection(site):
            await eventually(lambda: site.port.open_connections() == 2)
            with pytest.raises(httpx.TransportError):
                await site.http.post(GET_USER, json={})
        await eventually(lambda: site.port.open_connections() == 0)
        assert (await site.http.post(GET_USER, json={})).status_code == 400


async def test_an_answer_to_head_has_no_body(site: Site) -> None:
    answer = await site.http.head("/openapi.json")
    assert (answer.status_code, answer.content) == (200, b"")
