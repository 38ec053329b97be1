"""The previous release on the schema of this one, as during every rolling deployment."""

import subprocess
from pathlib import Path
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import Order, OrderStatus
from commerce.users.v1.user_pb2 import User, UserProfile, UserState
from google.type.money_pb2 import Money

from tests.support.clients import Clients, connect, item
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT
from tests.support.processes import serving

# The last commit before the schema grew beyond users and orders.
RELEASE = "53a635556e9fc73c732fc944a5898a7d819ffec9"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source tree of the release."""
    if subprocess.run(["git", "cat-file", "-e", RELEASE], cwd=ROOT, check=False, capture_output=True).returncode != 0:
        pytest.skip("this copy of the source has no history, so there is no previous release")
    tree = tmp_path_factory.mktemp("release")
    archive = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=archive, check=True)
    return tree


async def whole_life(clients: Clients, user: User, order: Order) -> None:
    """Make every call of the previous release that changes a user or an order."""
    changed = users_pb.UpdateUserRequest(user=User(id=user.id, full_name="Grace Hopper"))
    assert (await clients.users.UpdateUser(changed)).user.full_name == "Grace Hopper"
    check = users_pb.VerifyPasswordRequest(email=user.email, password=PASSWORD)
    assert (await clients.users.VerifyPassword(check)).user.id == user.id
    items = orders_pb.UpdateOrderRequest(order=Order(id=order.id, items=[item("rocket", 2, 7)]))
    assert (await clients.orders.UpdateOrder(items)).order.total_amount.units == 14
    confirm = orders_pb.ConfirmOrderRequest(id=order.id, request_id=str(uuid4()))
    assert await clients.orders.ConfirmOrder(confirm) == await clients.orders.ConfirmOrder(confirm)
    await clients.orders.ProcessOrder(orders_pb.ProcessOrderRequest(id=order.id))
    ship = orders_pb.ShipOrderRequest(id=order.id, tracking_number="TRACK-1")
    assert (await clients.orders.ShipOrder(ship)).order.status == OrderStatus.ORDER_STATUS_SHIPPED
    listed = await clients.orders.ListOrders(orders_pb.ListOrdersRequest(user_id=user.id, include_total_size=True))
    assert [found.id for found in listed.orders] == [order.id]
    events = await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order.id))
    assert len(events.events) >= 5
    await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user.id))
    await clients.users.DeleteUser(users_pb.DeleteUserRequest(id=user.id))
    undeleted = (await clients.users.UndeleteUser(users_pb.UndeleteUserRequest(id=user.id))).user
    assert (undeleted.id, undeleted.state) == (user.id, UserState.USER_STATE_INACTIVE)


async def test_the_previous_release_works_on_this_schema(release: Path, database_url: str) -> None:
    async with serving(database_url, tree=release) as process, connect(await process.port()) as clients:
        user = await clients.create_user()
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            # Otherwise this would not be the previous release.
            await clients.users.GetCreditBalance(users_pb.GetCreditBalanceRequest(user_id=user.id))
        await whole_life(clients, user, await clients.create_order(user.id))


async def test_the_previous_release_works_on_data_of_this_one(release: Path, database_url: str) -> None:
    async with (
        serving(database_url, tree=release) as old,
        serving(database_url) as new,
        connect(await old.port()) as clients_of_old,
        connect(await new.port()) as clients_of_new,
    ):
        user = await clients_of_new.create_user(profile=UserProfile(bio="Likes engines."))
        gift = users_pb.GrantCreditRequest(user_id=user.id, amount=Money(currency_code="EUR", units=500))
        await clients_of_new.users.GrantCredit(gift)
        order = await clients_of_new.create_order(user.id)
        await clients_of_new.orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=order.id, tags=["gift"]))
        note = OrderNote(order_id=order.id, author_id=user.id, body="fragile")
        await clients_of_new.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))
        await whole_life(clients_of_old, user, order)
        changed = (await clients_of_new.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id))).order
        assert [(item.product_id, item.quantity) for item in changed.items] == [("rocket", 2)]
        kept = (await clients_of_new.users.GetUser(users_pb.GetUserRequest(id=user.id))).user
        assert (kept.profile.bio, kept.full_name) == ("Likes engines.", "Grace Hopper")


async def test_this_release_works_on_data_of_the_previous_one(release: Path, database_url: str) -> None:
    async with (
        serving(database_url, tree=release) as old,
        serving(database_url) as new,
        connect(await old.port()) as clients_of_old,
        connect(await new.port()) as clients_of_new,
    ):
        user = await clients_of_old.create_user()
        order = await clients_of_old.create_order(user.id)
        found = await clients_of_new.users.SearchUsers(users_pb.SearchUsersRequest(query=user.username))
        assert [result.user.id for result in found.results] == [user.id]
        profile = User(id=user.id, profile=UserProfile(bio="Likes engines."))
        await clients_of_new.users.UpdateUser(users_pb.UpdateUserRequest(user=profile))
        await whole_life(clients_of_new, user, order)
