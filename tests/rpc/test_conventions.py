from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User
from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from grpc import StatusCode

from tests.support.clients import Clients, new_order, new_user
from tests.support.failures import fails
from tests.support.methods import METHODS, MUTATIONS, call, call_bytes, etag_holder, request_class, resource_of
from tests.support.passwords import PASSWORD
from tests.support.requests import (
    GOOD_REQUESTS,
    euros,
    note_in,
    order_in,
    transition_request,
    user_in,
    user_with_credit,
)
from tests.support.servers import OwnServer

CREATES = ("CreateOrder", "CreateOrderNote", "CreateUser")
# These methods change no single resource with an etag.
MOVES = ("GrantCredit", "TransferCredit", "TransferOrders")
CHANGES = [method for method in MUTATIONS if method not in (*CREATES, *MOVES)]
# Methods whose result Get can return: notes have no Get, and a purged user is not found.
GETTABLE_CHANGES = [method for method in CHANGES if not method.endswith("Note") and method != "PurgeUser"]
every_mutation = pytest.mark.parametrize("method", MUTATIONS)


async def _taken_email(clients: Clients) -> Any:
    email = (await clients.create_user()).email
    return users_pb.CreateUserRequest(user=new_user(email=email), password=PASSWORD)


async def _taken_username(clients: Clients) -> Any:
    user, other = await clients.create_user(), await clients.create_user()
    return users_pb.UpdateUserRequest(user=User(id=user.id, username=other.username))


async def _taken_reference(clients: Clients) -> Any:
    order = await order_in(clients, "PENDING", external_ref="taken")
    return orders_pb.CreateOrderRequest(order=new_order(order.user_id, external_ref="taken"))


async def _taken_reference_in_update(clients: Clients) -> Any:
    order = await order_in(clients, "PENDING", external_ref="taken")
    other = await clients.create_order(order.user_id)
    return orders_pb.UpdateOrderRequest(order=Order(id=other.id, external_ref="taken"))


def _user(method: str, state: str, **fields: Any) -> Callable[[Clients], Awaitable[Any]]:
    async def build(clients: Clients) -> Any:
        return request_class(method)(id=(await user_in(clients, state)).id, **fields)

    return build


def _order(transition: str, status: str) -> Callable[[Clients], Awaitable[Any]]:
    async def build(clients: Clients) -> Any:
        return transition_request(transition, (await order_in(clients, status)).id)

    return build


async def _grant_to_deleted(clients: Clients) -> Any:
    return users_pb.GrantCreditRequest(user_id=(await user_in(clients, "DELETED")).id, amount=euros(1))


async def _transfer_too_much(clients: Clients) -> Any:
    giver, taker = await user_with_credit(clients), await user_with_credit(clients)
    return users_pb.TransferCreditRequest(from_user_id=giver, to_user_id=taker, amount=euros(101))


async def _transfer_to_inactive(clients: Clients) -> Any:
    order = await order_in(clients, "PENDING")
    taker = await user_in(clients, "INACTIVE")
    return orders_pb.TransferOrdersRequest(from_user_id=order.user_id, to_user_id=taker.id)


async def _purge_in_use(clients: Clients) -> Any:
    return users_pb.PurgeUserRequest(id=(await order_in(clients, "PENDING")).user_id)


async def _note_of_inactive(clients: Clients) -> Any:
    request = await GOOD_REQUESTS["CreateOrderNote"](clients)
    request.note.author_id = (await user_in(clients, "INACTIVE")).id
    return request


async def _publish_published(clients: Clients) -> Any:
    return orders_pb.PublishOrderNoteRequest(id=(await note_in(clients, published=True)).id)


def _stale(method: str) -> Callable[[Clients], Awaitable[Any]]:
    async def build(clients: Clients) -> Any:
        request = await GOOD_REQUESTS[method](clients)
        etag_holder(request).etag = "stale"
        return request

    return build


# For every mutation, a request that the stored state does not allow, and its failure.
REFUSED: dict[str, tuple[Callable[[Clients], Awaitable[Any]], StatusCode, str]] = {
    "CreateUser": (_taken_email, StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS"),
    "UpdateUser": (_taken_username, StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS"),
    "DeactivateUser": (_user("DeactivateUser", "INACTIVE"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "ReactivateUser": (_user("ReactivateUser", "ACTIVE"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "DeleteUser": (_user("DeleteUser", "DELETED"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "UndeleteUser": (_user("UndeleteUser", "ACTIVE"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "SetPassword": (
        _user("SetPassword", "DELETED", password=PASSWORD),
        StatusCode.FAILED_PRECONDITION,
        "USER_DELETED",
    ),
    "CreateOrder": (_taken_reference, StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS"),
    "UpdateOrder": (_taken_reference_in_update, StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS"),
    "ConfirmOrder": (_order("Confirm", "CONFIRMED"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "ProcessOrder": (_order("Process", "PENDING"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "ShipOrder": (_order("Ship", "CONFIRMED"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "DeliverOrder": (_order("Deliver", "PROCESSING"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "CancelOrder": (_order("Cancel", "SHIPPED"), StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "PurgeUser": (_purge_in_use, StatusCode.FAILED_PRECONDITION, "USER_IN_USE"),
    "GrantCredit": (_grant_to_deleted, StatusCode.FAILED_PRECONDITION, "USER_DELETED"),
    "TransferCredit": (_transfer_too_much, StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDIT"),
    "TransferOrders": (_transfer_to_inactive, StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE"),
    "AddOrderTags": (_stale("AddOrderTags"), StatusCode.ABORTED, "ETAG_MISMATCH"),
    "RemoveOrderTags": (_stale("RemoveOrderTags"), StatusCode.ABORTED, "ETAG_MISMATCH"),
    "CreateOrderNote": (_note_of_inactive, StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE"),
    "UpdateOrderNote": (_stale("UpdateOrderNote"), StatusCode.ABORTED, "ETAG_MISMATCH"),
    "PublishOrderNote": (_publish_published, StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"),
    "DeleteOrderNote": (_stale("DeleteOrderNote"), StatusCode.ABORTED, "ETAG_MISMATCH"),
}


def test_every_method_is_in_the_tables_of_these_tests() -> None:
    assert set(GOOD_REQUESTS) == set(METHODS)
    assert set(REFUSED) == set(MUTATIONS)


@every_mutation
def test_every_mutation_takes_a_request_id_and_validate_only(method: str) -> None:
    assert {"request_id", "validate_only"} <= set(METHODS[method].input_type.fields_by_name)


@pytest.mark.parametrize("method", CHANGES)
def test_every_change_takes_an_etag(method: str) -> None:
    assert "etag" in etag_holder(request_class(method)()).DESCRIPTOR.fields_by_name


# validate_only


@every_mutation
async def test_a_dry_run_answers_as_if_done_and_writes_nothing(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    before = await own.versions()
    request.validate_only = True
    dry = await call(own.clients.channel, method, request)
    assert await own.versions() == before
    request.validate_only = False
    done = await call(own.clients.channel, method, request)
    assert await own.versions() != before
    assert _without_ids_and_times(dry) == _without_ids_and_times(done)


@every_mutation
async def test_a_dry_run_fails_as_the_call_would(own: OwnServer, method: str) -> None:
    refused, code, reason = REFUSED[method]
    request = await refused(own.clients)
    before = await own.versions()
    statuses = []
    for validate_only in (True, False):
        request.validate_only = validate_only
        with fails(code, reason) as failure:
            await call(own.clients.channel, method, request)
        statuses.append((failure.message, failure.trailers["grpc-status-details-bin"]))
    assert statuses[0] == statuses[1]
    assert await own.versions() == before


@every_mutation
async def test_a_dry_run_leaves_its_request_id_free(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.request_id = str(uuid4())
    request.validate_only = True
    before = await own.versions()
    await call(own.clients.channel, method, request)
    assert await own.versions() == before
    request.validate_only = False
    await call(own.clients.channel, method, request)
    assert (await own.rows())["request_ids"] == before["request_ids"][0] + 1


# request_id


@every_mutation
async def test_a_request_id_gives_the_first_response_again_and_has_no_second_effect(
    own: OwnServer, method: str
) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.request_id = str(uuid4())
    body = request.SerializeToString()
    first = await call_bytes(own.clients.channel, method, body)
    after_first = await own.versions()
    assert await call_bytes(own.clients.channel, method, body) == first
    assert await own.versions() == after_first


async def test_a_response_is_repeated_also_when_the_order_has_changed_since(own: OwnServer) -> None:
    request = await GOOD_REQUESTS["ConfirmOrder"](own.clients)
    request.request_id = str(uuid4())
    body = request.SerializeToString()
    first = await call_bytes(own.clients.channel, "ConfirmOrder", body)
    await call(own.clients.channel, "CancelOrder", transition_request("Cancel", request.id))
    assert await call_bytes(own.clients.channel, "ConfirmOrder", body) == first


async def test_the_order_of_a_maps_entries_is_no_other_body(own: OwnServer) -> None:
    request = await GOOD_REQUESTS["CreateOrder"](own.clients)
    request.request_id = str(uuid4())
    turned = type(request)()
    turned.CopyFrom(request)
    turned.order.metadata.clear()
    for key in reversed(list(request.order.metadata)):
        turned.order.metadata[key] = request.order.metadata[key]
    first = await call_bytes(own.clients.channel, "CreateOrder", request.SerializeToString())
    assert await call_bytes(own.clients.channel, "CreateOrder", turned.SerializeToString()) == first


@every_mutation
async def test_a_request_id_with_another_body_is_refused(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.request_id = str(uuid4())
    await call(own.clients.channel, method, request)
    before = await own.versions()
    if method == "TransferOrders":
        request.to_user_id = str(uuid4())
    elif method in MOVES:
        request.description = "another"
    else:
        etag_holder(request).etag = "another"
    with fails(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", field="request_id"):
        await call(own.clients.channel, method, request)
    assert await own.versions() == before


@every_mutation
async def test_a_failed_call_leaves_its_request_id_free(own: OwnServer, method: str) -> None:
    refused, code, reason = REFUSED[method]
    request = await refused(own.clients)
    good = await GOOD_REQUESTS[method](own.clients)
    request.request_id = good.request_id = str(uuid4())
    before = await own.versions()
    for _ in range(2):
        with fails(code, reason):
            await call(own.clients.channel, method, request)
    assert await own.versions() == before
    await call(own.clients.channel, method, good)


async def test_a_request_id_is_free_for_every_other_method(own: OwnServer) -> None:
    request_id = str(uuid4())
    before = (await own.rows())["request_ids"]
    for method in MUTATIONS:
        request = await GOOD_REQUESTS[method](own.clients)
        request.request_id = request_id
        await call(own.clients.channel, method, request)
    assert (await own.rows())["request_ids"] == before + len(MUTATIONS)


async def test_without_a_request_id_the_same_call_is_done_again(own: OwnServer) -> None:
    request = await GOOD_REQUESTS["CreateOrder"](own.clients)
    request.order.external_ref = ""
    before = await own.rows()
    first = await call(own.clients.channel, "CreateOrder", request)
    second = await call(own.clients.channel, "CreateOrder", request)
    assert first.order.id != second.order.id
    after = await own.rows()
    assert (after["orders"], after["request_ids"]) == (before["orders"] + 2, before["request_ids"])


# etag


@pytest.mark.parametrize("method", CHANGES)
async def test_a_stale_etag_is_aborted_and_the_current_one_works(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    # Notes have no Get.
    etag = "v1" if method.endswith("Note") else (await _resource_named_by(own.clients, request)).etag
    before = await own.versions()
    etag_holder(request).etag = f"{etag}0"
    with fails(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await call(own.clients.channel, method, request)
    assert await own.versions() == before
    etag_holder(request).etag = etag
    changed = resource_of(await call(own.clients.channel, method, request))
    assert changed is None or changed.etag != etag


@pytest.mark.parametrize("method", GETTABLE_CHANGES)
async def test_the_answer_of_a_change_equals_the_stored_resource(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    changed = resource_of(await call(own.clients.channel, method, request))
    assert changed == await _resource_named_by(own.clients, request)


@pytest.mark.parametrize("method", ["CreateOrder", "CreateUser"])
async def test_the_answer_of_a_creation_equals_the_stored_resource(own: OwnServer, method: str) -> None:
    created = resource_of(await call(own.clients.channel, method, await GOOD_REQUESTS[method](own.clients)))
    get = "GetUser" if method == "CreateUser" else "GetOrder"
    assert resource_of(await call(own.clients.channel, get, request_class(get)(id=created.id))) == created


@pytest.mark.parametrize("method", CHANGES)
async def test_a_change_of_a_missing_resource_is_not_found(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    named = request if "id" in request.DESCRIPTOR.fields_by_name else resource_of(request)
    named.id = str(uuid4())
    kind = next((kind for kind in ("Note", "Order") if kind in method), "User").upper()
    before = await own.versions()
    with fails(StatusCode.NOT_FOUND, f"{kind}_NOT_FOUND") as failure:
        await call(own.clients.channel, method, request)
    assert named.id in failure.message
    assert await own.versions() == before


# Output-only fields

JUNK_ID = "badbad00-0000-4000-8000-00000000f00d"
JUNK_NUMBER = 1_000_000_007


@pytest.mark.parametrize(
    ("method", "mask"),
    [
        ("CreateOrder", ()),
        ("CreateUser", ()),
        ("UpdateOrder", ()),
        ("UpdateOrder", ("*",)),
        ("UpdateUser", ()),
        ("UpdateUser", ("*",)),
    ],
)
async def test_output_only_fields_of_a_request_are_ignored(own: OwnServer, method: str, mask: tuple[str, ...]) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    if mask:
        request.update_mask.paths.extend(mask)
    request.validate_only = True
    expected = await call(own.clients.channel, method, request)
    request.validate_only = False
    assert _fill_output_only(resource_of(request)) >= 5
    if method.startswith("Create"):
        resource_of(request).id = JUNK_ID
    answer = await call(own.clients.channel, method, request)
    assert _without_ids_and_times(answer) == _without_ids_and_times(expected)
    assert JUNK_ID not in str(answer)
    assert str(JUNK_NUMBER) not in str(answer)


def _fill_output_only(message: Any) -> int:
    """Set every output-only field of a message and of those in its repeated fields; return their number."""
    filled = 0
    for field in message.DESCRIPTOR.fields:
        if OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior]:
            filled += 1
            if field.is_repeated:
                getattr(message, field.name).append(JUNK_ID)
            elif field.message_type:
                part = getattr(message, field.name)
                names = part.DESCRIPTOR.fields_by_name
                number = next(names[name] for name in ("units", "seconds", "state") if name in names)
                setattr(part, number.name, JUNK_NUMBER)
            else:
                setattr(message, field.name, field.enum_type.values[-1].number if field.enum_type else JUNK_ID)
        elif field.name == "items":
            filled += sum(map(_fill_output_only, message.items))
    return filled


def _without_ids_and_times(response: Any) -> Any:
    """Return the response without the fields that differ between two equal calls."""
    copy = type(response)()
    copy.CopyFrom(response)
    resource = resource_of(copy) or copy
    for name in ("id", "order_number", "create_time", "update_time", "delete_time", "purge_time", "transaction_id"):
        if name in resource.DESCRIPTOR.fields_by_name:
            resource.ClearField(name)
    for item in getattr(resource, "items", ()):
        item.ClearField("id")
    if "publish_time" in resource.DESCRIPTOR.fields_by_name:
        resource.ClearField("publish_time")
    return copy


async def _resource_named_by(clients: Clients, request: Any) -> Any:
    named = request if "id" in request.DESCRIPTOR.fields_by_name else resource_of(request)
    is_order = request.DESCRIPTOR.file.package.startswith("commerce.orders")
    get = "GetOrder" if is_order else "GetUser"
    return resource_of(await call(clients.channel, get, request_class(get)(id=named.id)))
