"""docs/operations/signing-key.md, played through: what an old key has signed stays valid, or fails as the page says."""

from typing import NamedTuple
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order

from service.server import StartError
from tests.support.clients import Clients, new_order
from tests.support.databases import driver_connection
from tests.support.dumps import dsn
from tests.support.failures import fails
from tests.support.pages import Page, Shell
from tests.support.passwords import PASSWORD
from tests.support.processes import run_command
from tests.support.servers import running_server, serving_clients
from tests.support.watching import watch_orders


class Signed(NamedTuple):
    """What a server has signed or digested, and its answer."""

    page_token: str
    second_page: list[str]
    cursor: str
    next_event: str
    request: orders_pb.CreateOrderRequest
    order: Order


async def signed_by(clients: Clients) -> Signed:
    users = [await clients.create_user() for _ in range(3)]
    first = await clients.users.ListUsers(users_pb.ListUsersRequest(page_size=1))
    second = users_pb.ListUsersRequest(page_size=1, page_token=first.next_page_token)
    second_page = [user.id for user in (await clients.users.ListUsers(second)).users]
    await clients.create_order(users[0].id)
    request = orders_pb.CreateOrderRequest(order=new_order(users[0].id), request_id=str(uuid4()))
    async with watch_orders(clients, earliest=True) as stream:
        await stream.events(1)
        cursor = stream.cursor
        order = (await clients.orders.CreateOrder(request)).order
        (event,) = await stream.events(1)
    return Signed(first.next_page_token, second_page, cursor, event.id, request, order)


async def assert_valid(clients: Clients, signed: Signed) -> None:
    page = await clients.users.ListUsers(users_pb.ListUsersRequest(page_size=1, page_token=signed.page_token))
    assert [user.id for user in page.users] == signed.second_page
    async with watch_orders(clients, cursor=signed.cursor) as stream:
        (event,) = await stream.events(1)
        assert event.id == signed.next_event
    assert (await clients.orders.CreateOrder(signed.request)).order == signed.order


async def assert_invalid(clients: Clients, signed: Signed) -> None:
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await clients.users.ListUsers(users_pb.ListUsersRequest(page_size=1, page_token=signed.page_token))
    async with watch_orders(clients, cursor=signed.cursor) as stream:
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CURSOR"):
            await stream.next()
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"):
        await clients.orders.CreateOrder(signed.request)


async def test_a_key_is_moved_without_invalidating_anything_and_replaced(database_url: str, shell: Shell) -> None:
    page = Page("docs/operations/signing-key.md")
    shell.set(DATABASE_URL=dsn(database_url))
    file = shell.folder / "signing-key"
    async with serving_clients(database_url) as clients:
        signed = await signed_by(clients)
        export, replace_row = page.commands("Move the key out of the database")
        await shell.run(export)
        assert file.stat().st_mode & 0o77 == 0
        key = file.read_text().strip()
        async with serving_clients(database_url, signing_key=key) as clients_of_file:
            await assert_valid(clients_of_file, signed)
            await assert_valid(clients, await signed_by(clients_of_file))
            await shell.run(replace_row)
            await assert_valid(clients_of_file, signed)
    async with serving_clients(database_url) as clients:
        await assert_invalid(clients, signed)
    # Back into the table.
    await page.run("Move it into the database, or into another one", shell)
    async with serving_clients(database_url) as clients:
        await assert_valid(clients, signed)
    # Another key, a text.
    await page.run("Replace the key", shell)
    new_key = (shell.folder / "new-signing-key").read_text().strip()
    async with (
        serving_clients(database_url) as before,
        serving_clients(database_url, accepted_signing_key=new_key) as first,
        serving_clients(database_url, signing_key=new_key, accepted_signing_key=key) as second,
        serving_clients(database_url, signing_key=new_key) as last,
    ):
        signed_by_first, signed_by_second = await signed_by(first), await signed_by(second)
        await assert_valid(before, signed_by_first)
        await assert_valid(first, signed_by_second)
        await assert_valid(second, signed_by_first)
        await assert_valid(last, signed_by_second)
        await assert_invalid(before, signed_by_second)
        await assert_invalid(last, signed_by_first)
    # A text is the same key in the table as in the setting.
    (shell.folder / "new-signing-key").rename(file)
    await page.run("Move it into the database, or into another one", shell)
    async with serving_clients(database_url) as clients:
        await assert_valid(clients, signed_by_second)
    assert page.unused == set()


async def test_a_server_without_a_key_does_not_start_and_the_doctor_says_why(database_url: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute("DELETE FROM signing_keys")
    with pytest.raises(StartError, match="signing_keys is empty, and COMMERCE_SIGNING_KEY is not set"):
        async with running_server(database_url):
            pass
    report = await run_command("doctor", database_url=database_url)
    assert report.status == 1
    assert "FAIL  signing key" in report.stdout
    report = await run_command("doctor", database_url=database_url, signing_key=PASSWORD * 2)
    assert "ok    signing key   from COMMERCE_SIGNING_KEY" in report.stdout
