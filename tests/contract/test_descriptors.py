"""Every RPC declares what interceptors and validation read from its descriptor."""

import re
from collections.abc import Iterator
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.common.v1.error_reason_pb2 import ErrorReason
from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from tests.support.protos import comments, rules_of

SERVICES = (
    users_pb.DESCRIPTOR.services_by_name["UserService"],
    orders_pb.DESCRIPTOR.services_by_name["OrderService"],
)
METHODS = [method for service in SERVICES for method in service.methods]
# What the rules of buf.validate say of them is said in code: they are Google's messages.
CHECKED_IN_CODE = {"google.protobuf.Timestamp", "google.type.Interval", "google.type.Money"}
# Never stored, so a NUL in them does no harm.
NOT_STORED = {"password", "device_token", "etag", "page_token", "cursor"}
# VerifyPassword changes no resource, and a stored answer would outlive a change of password. ImportUsers knows its rows
# by their e-mails, so that they can be sent again.
WITHOUT_REQUEST_ID = {"VerifyPassword", "ImportUsers"}
# They change no resource that has an etag.
WITHOUT_ETAG = {
    "CreateUser",
    "CreateOrder",
    "CreateOrderNote",
    "VerifyPassword",
    "GrantCredit",
    "TransferCredit",
    "TransferOrders",
    "ImportUsers",
}


def name_of(method: MethodDescriptor) -> str:
    return method.name


def level_of(method: MethodDescriptor) -> int:
    return method.GetOptions().idempotency_level


MUTATIONS = [method for method in METHODS if level_of(method) != MethodOptions.NO_SIDE_EFFECTS]
LISTS = [method for method in METHODS if "page_size" in method.input_type.fields_by_name]


def input_fields(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    """Fields that a caller can set, also in messages inside."""
    for field in message.fields:
        if OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior]:  # type: ignore[index] # stub of an older protobuf
            continue
        yield field
        inner = field.message_type
        if inner and not inner.GetOptions().map_entry and inner.full_name.startswith("commerce."):
            assert inner.full_name not in seen, "a message inside itself has no bound"
            yield from input_fields(inner, seen | {inner.full_name})


INPUT_FIELDS = {field.full_name: field for method in METHODS for field in input_fields(method.input_type)}


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_method_says_what_it_does_and_how_it_fails(method: MethodDescriptor) -> None:
    comment = comments()[method.full_name]
    what, _, errors = comment.partition("Errors:")
    assert what.strip()
    reasons = re.findall(r"[A-Z]+(?:_[A-Z]+)+", errors)
    assert reasons
    codes = {code.name for code in grpc.StatusCode}
    known = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum is no dict
    assert set(reasons) - codes <= known


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_method_declares_its_idempotency_level(method: MethodDescriptor) -> None:
    assert level_of(method) in {MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT}


@pytest.mark.parametrize("method", MUTATIONS, ids=name_of)
def test_a_mutation_takes_a_request_id_and_allows_a_dry_run(method: MethodDescriptor) -> None:
    fields = method.input_type.fields_by_name
    assert ("request_id" in fields, "validate_only" in fields) == (method.name not in WITHOUT_REQUEST_ID,) * 2
    if "request_id" in fields:
        assert rules_of(fields["request_id"]).string.uuid
        assert fields["validate_only"].type == FieldDescriptor.TYPE_BOOL


@pytest.mark.parametrize("method", MUTATIONS, ids=name_of)
def test_a_change_of_an_existing_resource_takes_an_etag(method: MethodDescriptor) -> None:
    fields = method.input_type.fields_by_name
    if "id" in fields:
        assert "etag" in fields
    elif "update_mask" in fields:
        resource = next(field for field in method.input_type.fields if field.number == 1)
        assert resource.message_type
        assert "etag" in resource.message_type.fields_by_name
    else:
        assert method.name in WITHOUT_ETAG


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_request_and_response_are_the_method_s_own(method: MethodDescriptor) -> None:
    assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")


@pytest.mark.parametrize("method", LISTS, ids=name_of)
def test_a_list_pages_as_all_lists_do(method: MethodDescriptor) -> None:
    assert {"page_token", "include_total_size"} <= set(method.input_type.fields_by_name)
    assert {"next_page_token", "total_size"} <= set(method.output_type.fields_by_name)
    assert level_of(method) == MethodOptions.NO_SIDE_EFFECTS


@pytest.mark.parametrize("field", INPUT_FIELDS.values(), ids=INPUT_FIELDS)
def test_the_size_of_every_request_is_bounded(field: FieldDescriptor) -> None:
    rules = rules_of(field)
    if field.message_type and field.message_type.GetOptions().map_entry:
        assert rules.map.max_pairs
        assert_bounded_text(rules.map.keys.string, field)
        assert_bounded_text(rules.map.values.string, field)
        return
    if field.is_repeated:
        assert rules.repeated.max_items
        rules = rules.repeated.items
    if field.type == FieldDescriptor.TYPE_STRING:
        assert_bounded_text(rules.string, field)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        assert rules.enum.defined_only
    elif field.type == FieldDescriptor.TYPE_INT32:
        assert rules.int32.HasField("gte")
    elif field.type == FieldDescriptor.TYPE_INT64:
        assert rules.int64.HasField("gte")
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        assert_bounded_message(field, rules)
    else:
        assert field.type == FieldDescriptor.TYPE_BOOL


def assert_bounded_text(rules: Any, field: FieldDescriptor) -> None:
    assert rules.uuid or rules.max_len
    # PostgreSQL stores no NUL in text.
    assert rules.uuid or rules.email or rules.pattern or field.name in NOT_STORED


def assert_bounded_message(field: FieldDescriptor, rules: Any) -> None:
    assert field.message_type
    name = field.message_type.full_name
    if name == "google.protobuf.FieldMask":
        assert rules.cel
    else:
        assert name in CHECKED_IN_CODE or name.startswith("commerce.")
