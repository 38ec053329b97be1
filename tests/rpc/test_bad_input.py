import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.users.v1.user_pb2 import User
from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from google.type.money_pb2 import Money
from grpc import StatusCode

from tests.support.clients import item, new_order, new_user
from tests.support.failures import Failure, fails
from tests.support.methods import METHODS, call, call_bytes
from tests.support.requests import GOOD_REQUESTS
from tests.support.servers import OwnServer

MAX_MESSAGE_BYTES = 1000
MAX_DETAILS_BYTES = 4096
LARGEST = 2**63 - 1


@asynccontextmanager
async def refused(
    own: OwnServer, reason: str, *, code: StatusCode = StatusCode.INVALID_ARGUMENT, field: str | None = None
) -> AsyncIterator[Failure]:
    """Require that the block fails with this reason and a short message, and that nothing was written."""
    before = await own.versions()
    with fails(code, reason, field=field) as failure:
        yield failure
    after = await own.versions()
    if reason == "INVALID_CREDENTIALS":
        # Attempts with a wrong password are counted.
        del before["sign_in_attempts"], after["sign_in_attempts"]
    assert after == before
    assert len(failure.message) <= MAX_MESSAGE_BYTES
    assert len(failure.trailers.get("grpc-status-details-bin", b"")) <= MAX_DETAILS_BYTES


# Every string of every request.

Alter = Callable[[Any, Callable[[str], str]], None]


def string_fields(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, Alter]]:
    """Yield the path of every string that a caller can set in a message, with a function that changes it."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        options: Any = field.GetOptions()
        if OUTPUT_ONLY in options.Extensions[field_behavior]:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            yield f"{path}.key", partial(_alter_key, field.name)
            yield f"{path}.value", partial(_alter_value, field.name)
        elif field.message_type:
            for inner_path, alter in string_fields(field.message_type, f"{path}."):
                yield inner_path, partial(_alter_inside, field, alter)
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield path, partial(_alter, field)


def _alter(field: FieldDescriptor, message: Any, change: Callable[[str], str]) -> None:
    if field.is_repeated:
        strings = getattr(message, field.name)
        strings[:] = [change(strings[0] if strings else ""), *strings[1:]]
    else:
        setattr(message, field.name, change(getattr(message, field.name)))


def _alter_key(name: str, message: Any, change: Callable[[str], str]) -> None:
    getattr(message, name)[change("channel")] = "web"


def _alter_value(name: str, message: Any, change: Callable[[str], str]) -> None:
    getattr(message, name)["channel"] = change("web")


def _alter_inside(field: FieldDescriptor, alter: Alter, message: Any, change: Callable[[str], str]) -> None:
    part = getattr(message, field.name)
    alter(part[0] if field.is_repeated else part, change)


STRINGS = [(method, *string) for method in METHODS for string in string_fields(METHODS[method].input_type)]
# Strings without rules: they are hashed or not read.
FREE_STRINGS = {
    ("CreateUser", "password"),
    ("SetPassword", "password"),
    # A text that was not issued as a token is ignored.
    ("VerifyPassword", "device_token"),
    ("CreateUser", "user.etag"),
    ("CreateOrder", "order.etag"),
    ("CreateOrderNote", "note.etag"),
}
# Strings that may have several lines.
LONG_STRINGS = {
    ("CreateUser", "user.profile.bio"),
    ("UpdateUser", "user.profile.bio"),
    ("CreateOrderNote", "note.body"),
    ("UpdateOrderNote", "note.body"),
}


def every_string(*, but: set[tuple[str, str]] | None = None) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("method", "path", "alter"),
        [
            pytest.param(method, path, alter, id=f"{method}-{path}")
            for method, path, alter in STRINGS
            if (method, path) not in (but or set())
        ],
    )


def test_the_walk_over_the_descriptors_finds_strings_of_every_kind() -> None:
    paths = {path for _, path, _ in STRINGS}
    assert {
        "id",
        "ids",
        "user.email",
        "update_mask.paths",
        "order.metadata.key",
        "order.items.unit_price.currency_code",
    } < paths
    assert {path for _, path in FREE_STRINGS} < paths


def _refusal_of(path: str) -> tuple[StatusCode, str]:
    match path.rpartition(".")[2]:
        case "currency_code" if "." in path:
            return StatusCode.INVALID_ARGUMENT, "UNKNOWN_CURRENCY"
        case "paths":
            return StatusCode.INVALID_ARGUMENT, "INVALID_UPDATE_MASK"
        case "page_token":
            return StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"
        case "etag":
            return StatusCode.ABORTED, "ETAG_MISMATCH"
        case "password":
            return StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"
    return StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"


def _names(failure: Failure, path: str) -> bool:
    """Return whether one of the invalid fields is at this path, for any index or key."""
    expected = path.removesuffix(".key").removesuffix(".value")
    # A long key is cut off, and its bracket with it.
    return expected in {re.sub(r"\[\d+\]", "", field).partition("[")[0] for field in failure.fields}


@every_string(but=FREE_STRINGS)
async def test_a_nul_in_a_string_is_refused(own: OwnServer, method: str, path: str, alter: Alter) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    alter(request, lambda value: (value or "ada@example.com") + "\0")
    code, reason = _refusal_of(path)
    async with refused(own, reason, code=code) as failure:
        await call(own.clients.channel, method, request)
    assert reason != "INVALID_FIELD" or _names(failure, path)


@pytest.mark.validation
@every_string(but=FREE_STRINGS | LONG_STRINGS)
async def test_a_line_break_at_the_end_of_a_string_is_refused(
    own: OwnServer, method: str, path: str, alter: Alter
) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    alter(request, lambda value: (value or "ada") + "\n")
    code, reason = _refusal_of(path)
    async with refused(own, reason, code=code):
        await call(own.clients.channel, method, request)


@pytest.mark.validation
@every_string()
async def test_a_string_of_100_kb_is_refused(own: OwnServer, method: str, path: str, alter: Alter) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    alter(request, lambda value: value + "a" * 100_000)
    inside, _, name = path.rpartition(".")
    reason = {"paths": "INVALID_UPDATE_MASK", "currency_code": "UNKNOWN_CURRENCY"}.get(name) if inside else None
    async with refused(own, reason or "INVALID_FIELD") as failure:
        await call(own.clients.channel, method, request)
    assert reason or _names(failure, path)


@every_string()
async def test_a_string_that_is_not_utf_8_is_refused(own: OwnServer, method: str, path: str, alter: Alter) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    alter(request, lambda _: "MARK")
    body = request.SerializeToString()
    assert body.count(b"MARK") == 1, path
    async with refused(own, "MALFORMED_REQUEST"):
        await call_bytes(own.clients.channel, method, body.replace(b"MARK", b"\xc3\x28\xff\xfe"))


@pytest.mark.parametrize("body", [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0b"], ids=["no_tag", "cut_off", "open_group"])
@pytest.mark.parametrize("method", sorted(METHODS))
async def test_bytes_that_are_no_message_are_refused(own: OwnServer, method: str, body: bytes) -> None:
    async with refused(own, "MALFORMED_REQUEST"):
        await call_bytes(own.clients.channel, method, body)


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_an_empty_request_is_refused_unless_it_lists(own: OwnServer, method: str) -> None:
    if method in {"ListUsers", "ListOrders", "ListTags", "GetOrderStatistics"}:
        await call_bytes(own.clients.channel, method, b"")
        return
    async with refused(own, "INVALID_FIELD"):
        await call_bytes(own.clients.channel, method, b"")


@pytest.mark.validation
@pytest.mark.parametrize(
    "wrong",
    ["7", "not-a-uuid", "{01890a5d-ac96-774b-bcce-b302099a8057}", "01890a5dac96774bbcceb302099a8057"],
    ids=["number", "text", "braces", "no_dashes"],
)
@pytest.mark.parametrize(
    ("method", "path", "alter"),
    [
        pytest.param(method, path, alter, id=f"{method}-{path}")
        for method, path, alter in STRINGS
        if path.rpartition(".")[2] in {"id", "ids", "user_id", "order_id", "request_id"}
    ],
)
async def test_an_id_that_is_no_uuid_is_refused(
    own: OwnServer, method: str, path: str, alter: Alter, wrong: str
) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    alter(request, lambda _: wrong)
    async with refused(own, "INVALID_FIELD") as failure:
        await call(own.clients.channel, method, request)
    assert _names(failure, path)


async def test_a_request_larger_than_the_server_takes_is_refused(own: OwnServer) -> None:
    request = await GOOD_REQUESTS["CreateUser"](own.clients)
    request.user.full_name = "a" * (4 * 1024 * 1024)
    async with refused(own, "", code=StatusCode.RESOURCE_EXHAUSTED):
        await own.clients.users.CreateUser(request)


# Users.


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"email": ""}, "email"),
        ({"email": "ada"}, "email"),
        ({"email": "ada@"}, "email"),
        ({"email": "@example.com"}, "email"),
        ({"email": "ada@example.com, grace@example.com"}, "email"),
        ({"email": f"{'a' * 243}@example.com"}, "email"),
        ({"username": ""}, "username"),
        ({"username": "ab"}, "username"),
        ({"username": "a" * 51}, "username"),
        ({"username": "Ada"}, "username"),
        ({"username": "ada lovelace"}, "username"),
        ({"username": "adä"}, "username"),
        ({"full_name": "a" * 201}, "full_name"),
        ({"full_name": "Ada\nLovelace"}, "full_name"),
        ({"full_name": "Ada\x7f"}, "full_name"),
        ({"full_name": " \u200b\u3164"}, "full_name"),
    ],
    ids=lambda value: ascii(value)[:40],
)
@pytest.mark.parametrize("method", ["CreateUser", "UpdateUser"])
async def test_a_wrong_field_of_a_user_is_named(
    own: OwnServer, method: str, fields: dict[str, str], wrong: str
) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    for name, value in fields.items():
        setattr(request.user, name, value)
    if method == "UpdateUser":
        request.update_mask.paths.extend(fields)
    async with refused(own, "INVALID_FIELD", field=f"user.{wrong}"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize("password", ["", "a" * 7, "a" * 129, "ä" * 129, "a\u0308" * 7, "a\u0308" * 129])
@pytest.mark.parametrize("method", ["CreateUser", "SetPassword"])
async def test_a_password_of_a_wrong_length_is_refused_and_not_repeated(
    own: OwnServer, method: str, password: str
) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.password = password
    async with refused(own, "INVALID_FIELD", field="password") as failure:
        await call(own.clients.channel, method, request)
    assert not password or password not in str(failure)


async def test_all_invalid_fields_are_named_together(own: OwnServer) -> None:
    request = users_pb.CreateUserRequest(user=new_user(email="ada", username="A"), password="short")  # noqa: S106 - too short to be one
    async with refused(own, "INVALID_FIELD") as failure:
        await own.clients.users.CreateUser(request)
    assert sorted(failure.fields) == ["password", "user.email", "user.username"]


# Items and their prices.


def _priced(currency: str, units: int, nanos: int = 0, *, quantity: int = 1) -> OrderItem:
    return item("anvil", quantity, units, nanos, currency)


GOOD_ITEM = item("anvil", 1, 10)
PRICE = "order.items[0].unit_price"


@pytest.mark.parametrize(
    ("items", "reason", "field"),
    [
        pytest.param([], "INVALID_FIELD", "order.items", id="none"),
        pytest.param([GOOD_ITEM] * 501, "INVALID_FIELD", "order.items", id="501"),
        pytest.param([GOOD_ITEM, item("a", 0, 1)], "INVALID_FIELD", "order.items[1].quantity", id="quantity_0"),
        pytest.param([GOOD_ITEM, item("a", -1, 1)], "INVALID_FIELD", "order.items[1].quantity", id="quantity_-1"),
        pytest.param([item("a", 10_001, 1)], "INVALID_FIELD", "order.items[0].quantity", id="quantity_10001"),
        pytest.param([OrderItem(product_id="a", name="A", quantity=1)], "INVALID_FIELD", PRICE, id="no_price"),
        pytest.param([item("", 1, 1)], "INVALID_FIELD", "order.items[0].product_id", id="no_product"),
        pytest.param([item("\u00ad", 1, 1)], "INVALID_FIELD", "order.items[0].product_id", id="invisible_product"),
        pytest.param(
            [GOOD_ITEM, OrderItem(product_id="a", name="\u2060", quantity=1, unit_price=GOOD_ITEM.unit_price)],
            "INVALID_FIELD",
            "order.items[1].name",
            id="invisible_name",
        ),
        pytest.param([_priced("EUR", 1, 1_000_000)], "TOO_MANY_DECIMALS", PRICE, id="eur_3_decimals"),
        pytest.param([_priced("EUR", 0, 1)], "TOO_MANY_DECIMALS", PRICE, id="eur_9_decimals"),
        pytest.param([_priced("JPY", 1, 100_000_000)], "TOO_MANY_DECIMALS", PRICE, id="jpy_1_decimal"),
        pytest.param([_priced("KWD", 1, 100_000)], "TOO_MANY_DECIMALS", PRICE, id="kwd_4_decimals"),
        pytest.param([_priced("ABC", 1)], "UNKNOWN_CURRENCY", f"{PRICE}.currency_code", id="abc"),
        pytest.param([_priced("", 1)], "UNKNOWN_CURRENCY", f"{PRICE}.currency_code", id="no_currency"),
        pytest.param([_priced("eur", 1)], "UNKNOWN_CURRENCY", f"{PRICE}.currency_code", id="lower_case"),
        pytest.param([_priced("XAU", 1)], "UNKNOWN_CURRENCY", f"{PRICE}.currency_code", id="gold"),
        pytest.param([_priced("EUR", 1), _priced("USD", 1)], "MIXED_CURRENCIES", "order.items", id="mixed"),
        pytest.param([_priced("EUR", -1)], "AMOUNT_OUT_OF_RANGE", PRICE, id="negative"),
        pytest.param([_priced("EUR", 0, -10_000_000)], "AMOUNT_OUT_OF_RANGE", PRICE, id="negative_cent"),
        pytest.param([_priced("EUR", 1, 10**9)], "AMOUNT_OUT_OF_RANGE", f"{PRICE}.nanos", id="nanos_10^9"),
        pytest.param([_priced("EUR", -1, -(10**9))], "AMOUNT_OUT_OF_RANGE", f"{PRICE}.nanos", id="nanos_-10^9"),
        pytest.param([_priced("EUR", 1, -10_000_000)], "AMOUNT_OUT_OF_RANGE", f"{PRICE}.nanos", id="signs_+-"),
        pytest.param([_priced("EUR", -1, 10_000_000)], "AMOUNT_OUT_OF_RANGE", f"{PRICE}.nanos", id="signs_-+"),
        pytest.param([_priced("EUR", 10**15)], "AMOUNT_OUT_OF_RANGE", PRICE, id="10^15"),
        pytest.param([_priced("EUR", LARGEST)], "AMOUNT_OUT_OF_RANGE", PRICE, id="2^63-1"),
        pytest.param([_priced("EUR", -LARGEST - 1)], "AMOUNT_OUT_OF_RANGE", PRICE, id="-2^63"),
        pytest.param(
            [GOOD_ITEM, _priced("EUR", 10**14, quantity=10)],
            "AMOUNT_OUT_OF_RANGE",
            "order.items[1]",
            id="subtotal_too_large",
        ),
        pytest.param(
            [_priced("EUR", 999_999_999_999_999, 990_000_000), _priced("EUR", 0, 10_000_000)],
            "AMOUNT_OUT_OF_RANGE",
            "order.items",
            id="only_the_sum_too_large",
        ),
    ],
)
@pytest.mark.parametrize("method", ["CreateOrder", "UpdateOrder"])
async def test_wrong_items_are_refused(
    own: OwnServer, method: str, items: list[OrderItem], reason: str, field: str
) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    del request.order.items[:]
    request.order.items.extend(items)
    if method == "UpdateOrder":
        request.update_mask.paths.append("items")
    async with refused(own, reason, field=field):
        await call(own.clients.channel, method, request)


async def test_many_wrong_items_fit_into_a_status(own: OwnServer) -> None:
    wrong = OrderItem(product_id="p" * 101, name="\0" * 300, quantity=-1, unit_price=Money(currency_code="EUR"))
    request = await GOOD_REQUESTS["CreateOrder"](own.clients)
    request.order.items.extend([wrong] * 400)
    async with refused(own, "INVALID_FIELD", field="order.items[3].product_id"):
        await own.clients.orders.CreateOrder(request)


@pytest.mark.parametrize("external_ref", ["\ufeff", " "])
@pytest.mark.parametrize("method", ["CreateOrder", "UpdateOrder"])
async def test_a_reference_that_shows_nothing_is_refused(own: OwnServer, method: str, external_ref: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.order.external_ref = external_ref
    if method == "UpdateOrder":
        request.update_mask.paths.append("external_ref")
    async with refused(own, "INVALID_FIELD", field="order.external_ref"):
        await call(own.clients.channel, method, request)


async def test_a_request_of_a_million_items_does_not_delay_other_calls(own: OwnServer) -> None:
    # The server shares the event loop of this test.
    turns: list[float] = []

    async def turn() -> None:
        while True:
            turns.append(time.monotonic())
            await asyncio.sleep(0.001)

    body = b"\x0a\x80\x89\x7a" + b"\x2a\x00" * 1_000_000
    other = asyncio.create_task(turn())
    async with refused(own, "INVALID_FIELD", field="order.items"):
        await call_bytes(own.clients.channel, "CreateOrder", body)
    other.cancel()
    assert max(after - before for before, after in pairwise(turns)) < 0.5


@pytest.mark.parametrize(
    "metadata",
    [
        {f"key-{number}": "" for number in range(65)},
        {"": "value"},
        {"k" * 65: "value"},
        {"key": "v" * 501},
        {"two\nlines": ""},
        {"ключ\0" * 20: ""},
    ],
    ids=["65_entries", "empty_key", "long_key", "long_value", "key_of_two_lines", "cyrillic_key"],
)
async def test_wrong_metadata_is_refused(own: OwnServer, metadata: dict[str, str]) -> None:
    request = await GOOD_REQUESTS["CreateOrder"](own.clients)
    request.order.metadata.clear()
    request.order.metadata.update(metadata)
    async with refused(own, "INVALID_FIELD") as failure:
        await own.clients.orders.CreateOrder(request)
    assert _names(failure, "order.metadata")


async def test_an_order_without_a_user_is_refused(own: OwnServer) -> None:
    async with refused(own, "INVALID_FIELD", field="order.user_id"):
        await own.clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=new_order("")))


# Masks.


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("UpdateUser", path)
            for path in ("id", "state", "etag", "create_time", "password", "fullName", "user.email")
        ),
        *(("UpdateOrder", path) for path in ("id", "user_id", "status", "total_amount", "etag", "items.name", "note")),
        ("UpdateUser", ""),
        ("UpdateUser", "émail\0" * 30),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_mask_with_a_field_that_cannot_be_set_is_refused(own: OwnServer, method: str, path: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    good = "email" if method == "UpdateUser" else "items"
    request.update_mask.CopyFrom(FieldMask(paths=[good, path]))
    async with refused(own, "INVALID_UPDATE_MASK", field="update_mask"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize("method", ["UpdateOrder", "UpdateUser"])
async def test_a_star_beside_other_paths_is_refused(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.update_mask.paths.extend(["*", "email"])
    async with refused(own, "INVALID_UPDATE_MASK", field="update_mask"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize("method", ["UpdateOrder", "UpdateUser"])
async def test_a_mask_of_33_paths_is_refused(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.update_mask.paths.extend(["email"] * 33)
    async with refused(own, "INVALID_FIELD", field="update_mask"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize(
    ("method", "resource", "field"),
    [
        ("UpdateUser", {"user": User(full_name="Ada")}, "user.id"),
        ("UpdateOrder", {"order": Order(external_ref="cart")}, "order.id"),
    ],
    ids=["user", "order"],
)
async def test_an_update_of_nothing_is_refused(
    own: OwnServer, method: str, resource: dict[str, Any], field: str
) -> None:
    request = users_pb.UpdateUserRequest if method == "UpdateUser" else orders_pb.UpdateOrderRequest
    async with refused(own, "INVALID_FIELD", field=field):
        await call(own.clients.channel, method, request(**resource))


# Lists, batches and transitions.


@pytest.mark.parametrize("number", [0, 99, -1, 2**31 - 1], ids=["unspecified", "99", "-1", "2^31-1"])
@pytest.mark.parametrize(("method", "field"), [("ListUsers", "states"), ("ListOrders", "statuses")])
async def test_a_filter_by_an_unknown_state_is_refused(own: OwnServer, method: str, field: str, number: int) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    getattr(request, field).append(number)
    async with refused(own, "INVALID_FIELD", field=f"{field}[0]"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize("method", ["ListOrders", "ListUsers"])
async def test_an_unknown_order_of_a_list_is_refused(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.order_by = 99
    async with refused(own, "INVALID_FIELD", field="order_by"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize("method", ["ListOrderEvents", "ListOrders", "ListUsers"])
async def test_a_negative_page_size_is_refused(own: OwnServer, method: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.page_size = -1
    async with refused(own, "INVALID_FIELD", field="page_size"):
        await call(own.clients.channel, method, request)


def _interval(start: Timestamp | None = None, end: Timestamp | None = None) -> Interval:
    return Interval(start_time=start, end_time=end)


@pytest.mark.parametrize(
    ("interval", "field"),
    [
        pytest.param(_interval(Timestamp(seconds=2), Timestamp(seconds=1)), "create_time", id="inverted"),
        pytest.param(_interval(Timestamp(seconds=2**62)), "create_time.start_time", id="far_future"),
        pytest.param(_interval(Timestamp(seconds=-(2**62))), "create_time.start_time", id="far_past"),
        pytest.param(_interval(None, Timestamp(nanos=-1)), "create_time.end_time", id="negative_nanos"),
        pytest.param(_interval(None, Timestamp(nanos=10**9)), "create_time.end_time", id="nanos_10^9"),
    ],
)
@pytest.mark.parametrize("method", ["ListOrders", "ListUsers"])
async def test_a_wrong_interval_is_refused(own: OwnServer, method: str, interval: Interval, field: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.create_time.CopyFrom(interval)
    async with refused(own, "INVALID_FIELD", field=field):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize("count", [0, 1001])
@pytest.mark.parametrize("method", ["BatchGetOrders", "BatchGetUsers"])
async def test_a_batch_of_none_or_of_more_than_1000_is_refused(own: OwnServer, method: str, count: int) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    request.ids[:] = [request.ids[0]] * count
    async with refused(own, "INVALID_FIELD", field="ids"):
        await call(own.clients.channel, method, request)


@pytest.mark.parametrize(("method", "field"), [("ShipOrder", "tracking_number"), ("CancelOrder", "reason")])
@pytest.mark.parametrize("text", ["", "\u200b"], ids=["empty", "invisible"])
async def test_a_transition_without_its_text_is_refused(own: OwnServer, method: str, field: str, text: str) -> None:
    request = await GOOD_REQUESTS[method](own.clients)
    setattr(request, field, text)
    async with refused(own, "INVALID_FIELD", field=field):
        await call(own.clients.channel, method, request)


# Valid input that looks invalid.


async def test_a_password_may_hold_any_character_and_all_of_it_counts(own: OwnServer) -> None:
    password = "before\0after \n 密码"  # noqa: S105 - of a user that lives as long as the test
    user = (await own.clients.users.CreateUser(users_pb.CreateUserRequest(user=new_user(), password=password))).user
    await own.clients.users.VerifyPassword(users_pb.VerifyPasswordRequest(email=user.email, password=password))
    with fails(StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"):
        await own.clients.users.VerifyPassword(users_pb.VerifyPasswordRequest(email=user.email, password="before\0"))  # noqa: S106 - likewise


async def test_unknown_fields_of_a_request_are_ignored(own: OwnServer) -> None:
    request = await GOOD_REQUESTS["CreateUser"](own.clients)
    # Field 1000, a string.
    body = request.SerializeToString() + b"\xc2\x3e\x03new"
    response = users_pb.CreateUserResponse.FromString(await call_bytes(own.clients.channel, "CreateUser", body))
    assert response.user.email == request.user.email


async def test_an_order_may_have_500_items_and_64_entries_of_metadata(own: OwnServer) -> None:
    user = await own.clients.create_user()
    items = [item(f"p{number}", 10_000, 1) for number in range(500)]
    metadata = {f"{number:064}": "v" * 500 for number in range(64)}
    order = await own.clients.create_order(user.id, items=items, metadata=metadata, external_ref="r" * 100)
    assert (len(order.items), order.total_amount.units, dict(order.metadata)) == (500, 5_000_000, metadata)
