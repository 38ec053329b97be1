"""What a request costs until its sizes are refused is bounded, and the violations are those of protovalidate."""

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.users.v1.user_import_pb2 import UserImportRow
from commerce.users.v1.user_service_pb2 import ImportUsersRequest, VerifyPasswordRequest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.type.money_pb2 import Money
from protovalidate import Validator

from service.domain.errors import FieldViolation
from service.rpc.messages.validation import _field_violation, violations_of
from service.rpc.messages.wire_sizes import MAX_FIELDS, MAX_STRING_BYTES, size_violations
from tests.support.methods import METHODS

CREATE_ORDER = orders_pb.CreateOrderRequest.DESCRIPTOR
LIST_ORDERS = orders_pb.ListOrdersRequest.DESCRIPTOR
MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_BYTES = 20e6
ID = "0198a0b0-0000-7000-8000-000000000000"


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number >= 0x80 else bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def filled(part: bytes) -> bytes:
    return part * (MAX_REQUEST_BYTES // len(part))


def in_order(content: bytes) -> bytes:
    return field(1, content)


HUGE_REQUESTS = {
    "empty_items": (CREATE_ORDER, in_order(filled(b"\x2a\x00")), "order.items"),
    "items_of_many_orders": (CREATE_ORDER, filled(in_order(b"\x2a\x00")), ""),
    "items_of_a_kilobyte": (CREATE_ORDER, in_order(filled(field(5, b"\xf8\x7f\x00" * 300))), "order.items"),
    "items_of_many_fields": (CREATE_ORDER, in_order(filled(field(5, b"\xf8\x7f\x00" * 500))), ""),
    "entries_of_a_map": (CREATE_ORDER, in_order(filled(b"\x42\x00")), "order.metadata"),
    "long_names": (CREATE_ORDER, in_order(filled(field(5, field(3, b"n" * 9000)))), "order.items[0].name"),
    "a_long_reference": (CREATE_ORDER, in_order(field(7, b"r" * 4_000_000)), "order.external_ref"),
    "a_long_key": (CREATE_ORDER, in_order(field(8, field(1, b"k" * 4_000_000))), "order.metadata"),
    "a_long_value_of_the_server": (CREATE_ORDER, in_order(field(2, b"n" * 4_000_000)), "order.order_number"),
    "a_long_currency": (
        CREATE_ORDER,
        in_order(field(5, field(5, field(1, b"E" * 4_000_000)))),
        "order.items[0].unit_price.currency_code",
    ),
    "many_tags_of_the_server": (CREATE_ORDER, in_order(filled(b"\x4a\x00")), ""),
    "ids": (orders_pb.BatchGetOrdersRequest.DESCRIPTOR, filled(field(1, b"x")), "ids"),
    "long_ids": (orders_pb.BatchGetOrdersRequest.DESCRIPTOR, filled(field(1, b"x" * 4000)), "ids[0]"),
    "packed_statuses": (LIST_ORDERS, field(2, filled(b"\x01")), "statuses"),
    "packed_statuses_in_many_parts": (LIST_ORDERS, filled(field(2, b"\x01")), "statuses"),
    "unpacked_statuses": (LIST_ORDERS, filled(b"\x10\x01"), "statuses"),
    "paths_of_a_mask": (orders_pb.UpdateOrderRequest.DESCRIPTOR, field(2, filled(field(1, b"a"))), ""),
    "a_field_again_and_again": (CREATE_ORDER, filled(b"\x20\x01"), ""),
    "unknown_fields": (CREATE_ORDER, filled(b"\xf8\x7f\x00"), ""),
    "unknown_long_numbers": (CREATE_ORDER, filled(b"\xf8\x7f" + b"\xff" * 8 + b"\x7f"), ""),
    "unknown_strings": (CREATE_ORDER, filled(b"\xfa\x7f\x00"), ""),
    "unknown_groups": (CREATE_ORDER, filled(b"\xfb\x7f\xfc\x7f"), ""),
    "unknown_open_groups": (CREATE_ORDER, filled(b"\xfb\x7f"), ""),
    "fields_of_a_row": (ImportUsersRequest.DESCRIPTOR, field(2, filled(b"\x20\x01")), ""),
}


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the largest number of bytes that a function has allocated at any moment."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HUGE_REQUESTS)
def test_a_huge_request_is_refused_in_little_memory(name: str) -> None:
    descriptor, data, path = HUGE_REQUESTS[name]
    assert size_violations(descriptor, data)[0].field == path
    assert peak_bytes(lambda: size_violations(descriptor, data)) <= MAX_BYTES


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(orders_pb.CreateOrderRequest(order=Order(items=[OrderItem()] * 500)), id="empty_items"),
        pytest.param(
            orders_pb.CreateOrderRequest(
                order=Order(
                    items=[
                        OrderItem(product_id="p" * 400, name="\0" * 800, quantity=-1, unit_price=Money(units=1)),
                    ]
                    * 500,
                    metadata={"k" * 65 + str(number): "\0" * 600 for number in range(64)},
                )
            ),
            id="wrong_items_and_metadata",
        ),
        pytest.param(orders_pb.BatchGetOrdersRequest(ids=["x"] * 1000), id="ids"),
        pytest.param(orders_pb.UpdateOrderRequest(update_mask=FieldMask(paths=["a"] * 9000)), id="paths_of_a_mask"),
        pytest.param(UserImportRow(email="e" * 4_000_000), id="a_row"),
    ],
)
def test_an_invalid_request_is_refused_in_little_memory(message: Message) -> None:
    assert violations_of(message)
    assert peak_bytes(lambda: violations_of(message)) <= MAX_BYTES


@pytest.mark.parametrize("count", [1001, 2000, 4000, 5000])
def test_too_many_elements_are_the_violation_at_any_size(count: int) -> None:
    found = violations_of(orders_pb.BatchGetOrdersRequest(ids=[""] * count))
    assert found == [FieldViolation("ids", "must contain no more than 1000 item(s)", "REPEATED_MAX_ITEMS")]


def test_a_large_request_without_a_required_oneof_names_it() -> None:
    request = VerifyPasswordRequest(password="\U0001f600" * 128)
    assert [violation.field for violation in violations_of(request)] == ["login"]


def repeated_fields(message: Descriptor) -> Iterator[tuple[Descriptor, FieldDescriptor]]:
    """Yield the repeated fields of a message and of the messages inside it, each with its message."""
    for descriptor in message.fields:
        is_entry = descriptor.message_type and descriptor.message_type.GetOptions().map_entry
        if descriptor.is_repeated:
            yield message, descriptor
        if descriptor.message_type and not is_entry:
            yield from repeated_fields(descriptor.message_type)


REPEATED = {
    f"{message.full_name}.{descriptor.name}": (message, descriptor)
    for method in METHODS.values()
    for message, descriptor in repeated_fields(method.input_type)
}
# The rules leave them out: the server sets the tags, and a mask is a message of Google's. See `MAX_FIELDS`.
WITHOUT_RULE = {"commerce.orders.v1.Order.tags", "google.protobuf.FieldMask.paths"}


@pytest.mark.parametrize("name", sorted(REPEATED))
def test_too_many_elements_are_refused_as_protovalidate_does(name: str) -> None:
    message_type, descriptor = REPEATED[name]
    for count in (6, 10, 20, 32, 64, 100, 500, 1000, MAX_FIELDS):
        message: Any = GetMessageClass(message_type)()
        values = getattr(message, descriptor.name)
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            values.update({f"k{number}": "" for number in range(count + 1)})
        elif descriptor.message_type:
            values.extend([GetMessageClass(descriptor.message_type)()] * (count + 1))
        else:
            strings = descriptor.type == FieldDescriptor.TYPE_STRING
            values.extend(["a" if strings else 1] * (count + 1))
        found = [v for v in size_violations(message_type, message.SerializeToString()) if v.field == descriptor.name]
        if name in WITHOUT_RULE:
            assert not found
            continue
        if found:
            # protovalidate's own, which it finds in a small message.
            violations = map(_field_violation, Validator().collect_violations(message))
            assert found == [v for v in violations if v.field == descriptor.name]
            return
    assert name in WITHOUT_RULE, "no limit"


def test_a_request_of_the_maximum_size_is_read_to_its_end() -> None:
    # The longest item that the rules allow, as a caller sends it back that has read it from an order.
    item = OrderItem(
        id=ID,
        product_id="\U0001f600" * 100,
        name="\U0001f600" * 200,
        quantity=10_000,
        unit_price=Money(currency_code="EUR", units=10**14, nanos=990_000_000),
        subtotal=Money(currency_code="EUR", units=10**14, nanos=990_000_000),
    )
    order = Order(
        user_id=ID,
        items=[item] * 500,
        metadata={f"{number:064}": "\U0001f600" * 500 for number in range(64)},
        tags=["\U0001f600" * 50] * 20,
    )
    message = orders_pb.CreateOrderRequest(order=order, request_id=ID)
    assert size_violations(CREATE_ORDER, message.SerializeToString()) == []
    assert violations_of(message) == []


def test_a_field_of_a_group_is_not_counted_as_one_of_the_message() -> None:
    group = b"\x0b" + b"\x2a\x00" * 600 + b"\x0c"
    assert size_violations(Order.DESCRIPTOR, group) == []


def test_a_row_of_an_import_is_not_refused_before_the_import_rejects_it() -> None:
    request = ImportUsersRequest(row=UserImportRow(email="e" * MAX_STRING_BYTES * 2))
    assert size_violations(ImportUsersRequest.DESCRIPTOR, request.SerializeToString()) == []
    assert violations_of(request.row) == [FieldViolation("email", "must be at most 254 characters", "STRING_MAX_LEN")]


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x7f", b"\xff" * 6, b"\x0b", b"\x0c", b"\x0e", b"\x08", b"\x08" + b"\xff" * 10 + b"\x01", b"\x09\x00"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        size_violations(LIST_ORDERS, data)


def test_the_first_violations_name_the_elements_of_the_request() -> None:
    wrong = OrderItem(product_id="p", name="n", quantity=-1, unit_price=Money(currency_code="EUR"))
    good = OrderItem(product_id="p", name="n", quantity=1, unit_price=Money(currency_code="EUR"))
    order = Order(user_id="nobody", items=[good] * 300 + [wrong] * 100, external_ref="\0")
    fields = [violation.field for violation in violations_of(order)]
    assert {"user_id", "external_ref"} <= set(fields)
    found = violations_of(Order(items=[good] * 300 + [wrong] * 100))
    assert [violation.field for violation in found] == [f"items[{300 + n}].quantity" for n in range(16)]
