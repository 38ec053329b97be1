"""What type checkers say about a caller's program: mypy --strict, and pyright."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# In a folder of its own, with no configuration of ours, as a caller's program is.
PROGRAM = """
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from commerce.client import AsyncClient, Client, Money, NO_RETRIES, Outcome, Page, derive_request_id, to_datetime
from commerce.client.enums import OrderStatus
from commerce.client.errors import CommerceError, IllegalTransition, InvalidArgument
from commerce.client.generated import methods
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2 import GetUserRequest, GetUserResponse


def sign_up(client: Client, name: str) -> User:
    user: User = client.users.create(email=name, username=name, password=name, profile={"bio": "hello"}, timeout=5)
    again: User = client.users.create(User(username=name), password=name, validate_only=True)
    return client.users.update(user, full_name=again.full_name, update_mask=["full_name"])


def buy(client: Client, user: User) -> Decimal:
    order = client.orders.create(
        user_id=UUID(user.id),
        items=[
            {"product_id": "a", "name": "A", "quantity": 1, "unit_price": Money("1.50", "EUR")},
            OrderItem(product_id="b", name="B", quantity=2),
        ],
        request_id=derive_request_id("order", user.id),
        retry=NO_RETRIES,
    )
    if order.status == OrderStatus.PENDING:
        order = client.orders.confirm(order.id, etag=order.etag)
    try:
        client.orders.ship(order.id, tracking_number="T", on_behalf_of=user.id)
    except IllegalTransition as error:
        allowed: tuple[str, ...] = error.allowed
        print(allowed, error.outcome is Outcome.NOT_WRITTEN)
    except InvalidArgument as error:
        print([violation.field for violation in error.violations])
    except CommerceError as error:
        print(error.error_id, error.retry_after or 0.0)
    created: datetime = to_datetime(order.create_time)
    print(created)
    return Money.from_message(order.total_amount).amount


def read(client: Client, ids: list[str]) -> list[Order]:
    page: Page[User] = client.users.list(states=["ACTIVE"], order_by="OLDEST").first_page()
    print(page.items[0].email, page.total_size)
    for order in client.orders.list(statuses=["PENDING", OrderStatus.SHIPPED], create_time=(None, None)):
        print(order.order_number, OrderStatus(order.status).name)
    response: GetUserResponse = client.call(methods.GET_USER, GetUserRequest(id=ids[0]), read_preference="replica")
    print(response.user)
    return client.orders.batch_get(ids)


async def read_async(client: AsyncClient) -> User:
    async with client:
        async for order in client.orders.list():
            print(order.order_number)
        pages = [page.next_page_token async for page in client.users.search("ada").pages()]
        print(pages)
        await client.orders.delete_note("id")
        return await client.with_options(timeout=1).users.get(username="ada")
"""
# Each line is wrong, and its comment says for which checker it has which error.
WRONG = """
from commerce.client import AsyncClient, Client, Money


def wrong(client: Client) -> None:
    client.orders.create(user_id="1")
    client.orders.list(statuses=["PENDIN"])
    client.orders.get("1", tmeout=3)
    client.orders.confirm("1", read_preference="replica")
    client.users.grant_credit(user_id="1", amount=Money(1.5, "EUR"))
    client.users.get("1").mail
    client.orders.create(user_id="1", items=[{"product_id": "a"}])


async def missing_await(client: AsyncClient) -> str:
    return client.users.get("1").id
"""
WRONG_LINES = {6, 7, 8, 9, 10, 11, 12, 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caller")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "wrong.py").write_text(WRONG)
    return folder


def mypy(folder: Path, name: str) -> list[tuple[int, str]]:
    """Return the lines of a program of which mypy --strict says something, and what."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--output=json",
        f"--cache-dir={folder}",
        name,
    ]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode in {0, 1}, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return [(error["line"], error["message"]) for error in found if error["severity"] == "error"]


def pyright(folder: Path, name: str) -> list[tuple[int, str]]:
    """Return the same of pyright, as strict as it can be about what the package declares."""
    settings = {"typeCheckingMode": "strict", "reportMissingModuleSource": "none"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    program = str(Path(sys.executable).parent / "basedpyright")
    command = [program, "--outputjson", "--pythonpath", sys.executable, name]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode in {0, 1}, ran.stderr
    found = json.loads(ran.stdout)["generalDiagnostics"]
    return [(one["range"]["start"]["line"] + 1, one["message"]) for one in found if one["severity"] == "error"]


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_callers_program_has_no_type_errors(checker: type, folder: Path) -> None:
    assert checker(folder, "program.py") == []


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_mistakes_of_callers_are_type_errors(checker: type, folder: Path) -> None:
    assert {line for line, _ in checker(folder, "wrong.py")} == WRONG_LINES


def test_the_package_says_that_it_has_types() -> None:
    assert (ROOT / "client/commerce/py.typed").exists()
