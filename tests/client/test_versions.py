"""The first client on this server, and this client on a server from before it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commerce.client.errors import Unimplemented, UserNotFound

from tests.support.both_clients import both_clients
from tests.support.paths import ROOT
from tests.support.processes import serving

if TYPE_CHECKING:
    from service.server import Server

FIRST_CLIENT = "ad00ec224b0480bf65c4f2570b56802a89090793"
# The server had users and orders, and nothing else.
EARLY_SERVER = "53a635556e9fc73c732fc944a5898a7d819ffec9"
PROGRAM = """
import sys
import commerce.client
from commerce.client import AsyncClient, Client, Money
from commerce.client.errors import IllegalTransition, UserNotFound

assert commerce.client.__file__.startswith(sys.argv[1]), commerce.client.__file__
with Client(sys.argv[2]) as client:
    try:
        client.users.get(username="of-the-first-client")
    except UserNotFound as error:
        print(error.reason)
    user = client.users.create(
        email="of-the-first-client@example.com", username="of-the-first-client", password="correct horse battery"
    )
    client.users.grant_credit(user_id=user.id, amount=Money("50", "EUR"))
    item = {"product_id": "r7", "name": "Rocket", "quantity": 2, "unit_price": Money("5.25", "EUR")}
    order = client.orders.create(user_id=user.id, items=[item], pay_with_credit=True)
    try:
        client.orders.ship(order.id, tracking_number="T1")
    except IllegalTransition as error:
        print(error.allowed)
    client.orders.confirm(order.id)
    client.users.update(user.id, full_name="Ada")
    print([len(page.items) for page in client.orders.list(user_id=user.id, page_size=1).pages()])
    print(len(client.users.batch_get([user.id] * 1500)))
"""


def tree_of(commit: str, folder: Path, *paths: str) -> Path:
    """Return a folder with the sources of a commit."""
    if subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, check=False, capture_output=True).returncode != 0:
        pytest.skip("this copy of the source has no history, so it has no earlier version")
    archive = subprocess.run(["git", "archive", commit, *paths], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


async def test_the_first_client_works_on_this_server(server: "Server", tmp_path: Path) -> None:
    client = tree_of(FIRST_CLIENT, tmp_path, "client") / "client"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(client), f"127.0.0.1:{server.port}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(client)},
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert stdout.decode().splitlines() == ["USER_NOT_FOUND", "('CONFIRMED', 'CANCELLED')", "[1]", "1500"]


async def test_this_client_works_on_a_server_from_before_it(database_url: str, tmp_path: Path) -> None:
    async with (
        serving(database_url, tree=tree_of(EARLY_SERVER, tmp_path)) as process,
        both_clients("asyncio", await process.port(), timeout=20) as both,
    ):
        user = await both.create_user()
        with pytest.raises(Unimplemented):
            await both.call(lambda client: client.users.get_credit_balance(user_id=user.id))
        order = await both.create_order(user.id)
        await both.call(lambda client: client.orders.confirm(order.id))
        assert len(await both.items(lambda client: client.orders.list(user_id=user.id))) == 1
        with pytest.raises(UserNotFound):
            await both.call(lambda client: client.users.get(username="nobody-here"))
