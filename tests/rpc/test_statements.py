from collections.abc import Callable
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import Order

from tests.support.clients import Clients, item, new_order
from tests.support.methods import METHODS, MUTATIONS, call
from tests.support.requests import GOOD_REQUESTS, euros, order_in, user_with_credit
from tests.support.sent_statements import TRANSACTION_CONTROL, sent_statements
from tests.support.servers import OwnServer, own_server, serving_clients

# The counts below are those with the fast path.
pytestmark = pytest.mark.optimizations

# The number of statements of a call in a transaction, without BEGIN and COMMIT. A unit of work sets its time limit (1)
# and inserts its events (1); with a request id it also claims the id (1) and stores the response (1).
STATEMENTS = {
    "CreateUser": 5,
    "GetUser": 1,
    "BatchGetUsers": 1,
    "ListUsers": 1,
    "UpdateUser": 5,
    "DeactivateUser": 5,
    "ReactivateUser": 5,
    "DeleteUser": 5,
    "UndeleteUser": 5,
    "SetPassword": 6,
    # To count the attempt, to read the user, and to delete the count after the success.
    "VerifyPassword": 3,
    "CreateOrder": 5,
    "GetOrder": 1,
    "BatchGetOrders": 1,
    "ListOrders": 1,
    "UpdateOrder": 8,
    "ConfirmOrder": 6,
    "ProcessOrder": 6,
    "ShipOrder": 6,
    "DeliverOrder": 6,
    "CancelOrder": 6,
    "ListOrderEvents": 1,
    "PurgeUser": 20,
    "GetCreditBalance": 1,
    "GrantCredit": 5,
    "TransferCredit": 7,
    "ListCreditEntries": 1,
    "TransferOrders": 8,
    "GetOrderStatistics": 1,
    "AddOrderTags": 10,
    "RemoveOrderTags": 7,
    "ListTags": 1,
    "CreateOrderNote": 5,
    "UpdateOrderNote": 4,
    "PublishOrderNote": 4,
    "DeleteOrderNote": 4,
    "ListOrderNotes": 1,
    "SearchOrderNotes": 1,
    "SearchUsers": 1,
}
# The fast path: one statement, which is a transaction by itself, if there is no conflict; transitions read their
# order before it. A request id takes no more statements.
FAST_PATH_STATEMENTS = {
    "CreateOrder": 1,
    "ConfirmOrder": 2,
    "ProcessOrder": 2,
    "ShipOrder": 2,
    "DeliverOrder": 2,
    "CancelOrder": 2,
}
Sent = list[tuple[str, Any]]
WITH_REQUEST_ID = 2
# The time limit, the claim that fails, and the read of the stored response.
OF_A_REPLAY = 3
# The fast path finds the conflict first: by its statement, or by the order's status.
OF_A_REPLAY_AT_ONCE = OF_A_REPLAY + 1
ORDER_NUMBER_BLOCK = 32


def without_number_blocks(sent: Sent) -> Sent:
    """Leave out the statement that only every 32nd order takes."""
    return [(statement, values) for statement, values in sent if "order_number_seq" not in statement]


def test_the_tables_have_every_method() -> None:
    assert set(STATEMENTS) == set(METHODS)
    assert set(LIST_REQUESTS) == {method for method in METHODS if method.startswith(("List", "BatchGet"))}


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_a_call_takes_this_many_statements(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    with sent_statements() as statements:
        await call(own.clients.channel, method, request)
    statements = without_number_blocks(statements)
    assert len(statements) == FAST_PATH_STATEMENTS.get(method, STATEMENTS[method]), statements


@pytest.mark.parametrize("method", MUTATIONS)
async def test_only_the_transactional_unit_of_work_sends_begin_and_commit(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    with sent_statements(with_control=True) as sent:
        await call(own.clients.channel, method, request)
    controls = [statement.split()[0].strip(";") for statement, _ in sent if statement.startswith(TRANSACTION_CONTROL)]
    assert controls == ([] if method in FAST_PATH_STATEMENTS else ["BEGIN", "COMMIT"])


@pytest.mark.parametrize("method", MUTATIONS)
async def test_a_request_id_takes_two_more_or_none_on_the_fast_path(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.request_id = str(uuid4())
    with sent_statements() as statements:
        await call(own.clients.channel, method, request)
    statements = without_number_blocks(statements)
    assert len(statements) == FAST_PATH_STATEMENTS.get(method, STATEMENTS[method] + WITH_REQUEST_ID), statements


@pytest.mark.parametrize("method", MUTATIONS)
async def test_a_replay_takes_three_or_one_more_on_the_fast_path(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.request_id = str(uuid4())
    await call(own.clients.channel, method, request)
    with sent_statements() as statements:
        await call(own.clients.channel, method, request)
    assert len(statements) == (OF_A_REPLAY_AT_ONCE if method in FAST_PATH_STATEMENTS else OF_A_REPLAY), statements


@pytest.mark.parametrize("method", MUTATIONS)
async def test_a_dry_run_takes_the_statements_of_the_transaction(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.validate_only = True
    with sent_statements() as statements:
        await call(own.clients.channel, method, request)
    statements = without_number_blocks(statements)
    assert len(statements) == STATEMENTS[method], statements


async def test_an_order_with_credit_is_created_and_confirmed_in_a_transaction(own: OwnServer) -> None:
    user_id = await user_with_credit(own.clients)
    request = orders_pb.CreateOrderRequest(order=new_order(user_id, items=[item("a", 1, 5)]), pay_with_credit=True)
    with sent_statements() as statements:
        order = (await own.clients.orders.CreateOrder(request)).order
    statements = without_number_blocks(statements)
    # One statement reads and changes the account, and inserts two entries.
    assert len(statements) == STATEMENTS["CreateOrder"] + 3, statements
    with sent_statements() as statements:
        await own.clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
    # The same, after the read that finds the credit.
    assert len(statements) == 1 + STATEMENTS["ConfirmOrder"] + 3, statements


async def test_only_every_32nd_order_asks_for_numbers(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url) as own:
        user = await own.clients.create_user()
        blocks = []
        for _ in range(2 * ORDER_NUMBER_BLOCK + 1):
            with sent_statements() as statements:
                await own.clients.create_order(user.id)
            blocks.append(len(statements) - len(without_number_blocks(statements)))
    rest_of_block = [0] * (ORDER_NUMBER_BLOCK - 1)
    assert blocks == [1, *rest_of_block, 1, *rest_of_block, 1]


async def test_a_rehash_takes_two_more(postgres_url: str, template_url: str) -> None:
    async with (
        own_server(postgres_url, template_url) as own,
        serving_clients(own.database_url, argon2_time_cost=2) as clients,
    ):
        request = await GOOD_REQUESTS["VerifyPassword"](own.clients)
        with sent_statements() as statements:
            await clients.users.VerifyPassword(request)
    assert len(statements) == STATEMENTS["VerifyPassword"] + 2, statements


# Lists of one and of many, and orders of few and of many items, take the same number of statements.

LIST_REQUESTS: dict[str, Callable[[list[str], bool], Any]] = {
    "ListUsers": lambda _, total: users_pb.ListUsersRequest(page_size=1000, include_total_size=total),
    "ListOrders": lambda _, total: orders_pb.ListOrdersRequest(page_size=1000, include_total_size=total),
    "ListOrderEvents": lambda ids, total: orders_pb.ListOrderEventsRequest(
        order_id=ids[0], page_size=1000, include_total_size=total
    ),
    "ListTags": lambda ids, total: orders_pb.ListTagsRequest(prefix=ids[0], page_size=1000, include_total_size=total),
    "ListOrderNotes": lambda ids, total: orders_pb.ListOrderNotesRequest(
        order_id=ids[0], include_drafts=True, page_size=1000, include_total_size=total
    ),
    "ListCreditEntries": lambda ids, total: users_pb.ListCreditEntriesRequest(
        user_id=ids[0], page_size=1000, include_total_size=total
    ),
    "BatchGetUsers": lambda ids, _: users_pb.BatchGetUsersRequest(ids=ids),
    "BatchGetOrders": lambda ids, _: orders_pb.BatchGetOrdersRequest(ids=ids),
}


@pytest.mark.parametrize("include_total_size", [False, True], ids=["", "with_total_size"])
@pytest.mark.parametrize("method", sorted(LIST_REQUESTS))
async def test_a_list_of_a_hundred_takes_no_more_than_one_of_one(
    own: OwnServer, method: str, *, include_total_size: bool
) -> None:
    ids = await _hundred_of(own.clients, method)
    with sent_statements() as statements:
        response = await call(own.clients.channel, method, LIST_REQUESTS[method](ids, include_total_size))
    listed = next(getattr(response, field.name) for field in response.DESCRIPTOR.fields if field.message_type)
    assert len(listed) >= 100
    assert len(statements) == STATEMENTS[method], statements


@pytest.mark.parametrize("method", ["CreateOrder", "UpdateOrder", "ConfirmOrder", "GetOrder"])
async def test_an_order_of_500_items_takes_no_more_than_one_of_three(own: OwnServer, method: str) -> None:
    many = [item(f"product-{number}", 1, 1) for number in range(500)]
    request = await GOOD_REQUESTS[method](own.clients)
    if method in {"CreateOrder", "UpdateOrder"}:
        del request.order.items[:]
        request.order.items.extend(many)
    else:
        request.id = (await order_in(own.clients, "PENDING", items=many)).id
    with sent_statements() as statements:
        response = await call(own.clients.channel, method, request)
    assert len(response.order.items) == 500
    statements = without_number_blocks(statements)
    assert len(statements) == FAST_PATH_STATEMENTS.get(method, STATEMENTS[method]), statements


async def _hundred_of(clients: Clients, method: str) -> list[str]:
    """Create a hundred of what a method lists, and return their ids."""
    if method in {"ListUsers", "BatchGetUsers"}:
        return [(await clients.create_user()).id for _ in range(100)]
    user = await clients.create_user()
    if method == "ListCreditEntries":
        grant = users_pb.GrantCreditRequest(user_id=user.id, amount=euros(1))
        for _ in range(100):
            await clients.users.GrantCredit(grant)
        return [user.id]
    if method == "ListOrderNotes":
        order = await clients.create_order(user.id)
        note = OrderNote(order_id=order.id, author_id=user.id, body="fragile")
        for _ in range(100):
            await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))
        return [order.id]
    if method == "ListTags":
        prefix = f"p{uuid4().hex[:8]}"
        for start in range(0, 100, 20):
            order = await clients.create_order(user.id)
            tags = [f"{prefix}-{number}" for number in range(start, start + 20)]
            await clients.orders.AddOrderTags(orders_pb.AddOrderTagsRequest(id=order.id, tags=tags))
        return [prefix]
    if method == "ListOrderEvents":
        order = await clients.create_order(user.id)
        for number in range(100):
            change = Order(id=order.id, external_ref=f"cart-{number}")
            await clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=change))
        return [order.id]
    return [(await clients.create_order(user.id)).id for _ in range(100)]
