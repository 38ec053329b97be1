"""Plain values in place of messages."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, getcontext, localcontext
from typing import Any
from uuid import UUID, uuid4

import pytest
from commerce.client import Money, derive_request_id, to_datetime
from commerce.client.messages import make_create_request, make_request, make_update_request
from commerce.orders.v1.order_pb2 import Order, OrderItem, OrderStatus
from commerce.orders.v1.order_service_pb2 import CreateOrderRequest, ListOrdersRequest, UpdateOrderRequest
from commerce.users.v1.user_pb2 import User, UserProfile
from commerce.users.v1.user_service_pb2 import GetUserRequest, UpdateUserRequest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.properties import thorough

EXACT = st.decimals(-(10**18), 10**18, places=9)


@thorough
@given(EXACT)
def test_money_survives_the_message_and_back(amount: Decimal) -> None:
    money = Money(amount, "EUR")
    message = money.to_message()
    assert Money.from_message(message) == money
    # google.type.Money: both have the same sign.
    assert message.units * message.nanos >= 0
    assert abs(message.nanos) < 10**9


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 10**9 - 1))
def test_every_message_is_money_exactly(units: int, nanos: int) -> None:
    message = MoneyMessage(currency_code="EUR", units=units, nanos=-nanos if units < 0 else nanos)
    assert Money.from_message(message).to_message() == message


def test_money_does_not_depend_on_the_decimal_context_of_the_caller() -> None:
    with localcontext(getcontext()) as context:
        context.prec = 3
        money = Money("123456789.123456789", "EUR")
        assert Money.from_message(money.to_message()) == money


def test_money_prints_as_a_person_would_write_it() -> None:
    amounts = ["100", "10.5", "0.01", "-3", "0"]
    assert [str(Money.from_message(Money(amount, "EUR").to_message())) for amount in amounts] == [
        f"{amount} EUR" for amount in amounts
    ]


@pytest.mark.parametrize("amount", [1.1, None, True, b"1"])
def test_an_amount_that_is_not_exact_is_refused(amount: Any) -> None:
    with pytest.raises(TypeError, match="must be a Decimal, an int or a str"):
        Money(amount, "EUR")


@pytest.mark.parametrize("amount", ["", "ten", "NaN", "Infinity"])
def test_a_text_that_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|not finite"):
        Money(amount, "EUR")


@pytest.mark.parametrize("amount", ["0.0000000001", "1E+19", "9223372036854775808", "1E+999999"])
def test_an_amount_that_no_message_can_have_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"more than nine decimals|too large"):
        Money(amount, "EUR").to_message()


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 - the strategy adds the zone
def test_a_time_survives_the_message_and_back(time: datetime) -> None:
    request = make_request(ListOrdersRequest, {"create_time": (time, None)})
    # Times that a clock shows twice equal no time of another zone in Python.
    assert to_datetime(request.create_time.start_time) == time.astimezone(UTC)
    assert not request.create_time.HasField("end_time")


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        make_request(ListOrdersRequest, {"create_time": (datetime(2026, 1, 1), None)})  # noqa: DTZ001 - what is tested


def test_the_times_of_messages_are_in_utc() -> None:
    early = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    message = Timestamp()
    message.FromDatetime(early)
    assert to_datetime(message) == early
    assert to_datetime(message).tzinfo is UTC


def test_enums_are_numbers_names_or_members_of_messages() -> None:
    request = make_request(ListOrdersRequest, {"statuses": ["PENDING", OrderStatus.ORDER_STATUS_SHIPPED, 3]})
    assert list(request.statuses) == [1, 4, 3]
    with pytest.raises(ValueError, match="statuses cannot be 'PENDIN'"):
        make_request(ListOrdersRequest, {"statuses": ["PENDIN"]})


def test_ids_are_uuids_or_texts() -> None:
    id_ = uuid4()
    assert make_request(GetUserRequest, {"id": id_}) == make_request(GetUserRequest, {"id": str(id_)})


def test_one_of_the_alternatives_must_be_given() -> None:
    for fields in ({}, {"id": "1", "email": "a@example.com"}):
        with pytest.raises(TypeError, match="give exactly one of id, email, username"):
            make_request(GetUserRequest, fields)


def test_one_text_is_not_several() -> None:
    with pytest.raises(TypeError, match="tags_any must be several values, not 'urgent'"):
        make_request(ListOrdersRequest, {"tags_any": "urgent"})


def test_nested_messages_are_dicts_or_messages() -> None:
    price = MoneyMessage(currency_code="EUR", units=5)
    items = [
        {"product_id": "a", "quantity": 1, "unit_price": Money(5, "EUR")},
        {"product_id": "a", "quantity": 1, "unit_price": ("5", "EUR")},
        {"product_id": "a", "quantity": 1, "unit_price": price},
        OrderItem(product_id="a", quantity=1, unit_price=price),
    ]
    changes = {"user_id": uuid4(), "items": items, "metadata": {"a": "b"}}
    order = make_create_request(CreateOrderRequest, "order", None, changes, {}).order
    assert len({item.SerializeToString() for item in order.items}) == 1
    assert (order.user_id, dict(order.metadata)) == (str(changes["user_id"]), {"a": "b"})


def test_a_field_that_does_not_exist_is_named_with_its_message() -> None:
    with pytest.raises(TypeError, match="OrderItem has no field 'price'"):
        make_create_request(CreateOrderRequest, "order", None, {"items": [{"price": 1}]}, {})
    with pytest.raises(TypeError, match="UserProfile has no field 'age'"):
        make_update_request(UpdateUserRequest, "user", "1", {"profile": {"age": 1}}, {})
    with pytest.raises(TypeError, match="ListOrdersRequest has no field 'state'"):
        make_request(ListOrdersRequest, {"state": 1})


def test_what_is_given_by_name_takes_the_place_of_what_a_message_has() -> None:
    order = Order(user_id="1", external_ref="a", metadata={"a": "b"}, items=[OrderItem(product_id="x")])
    changes = {"external_ref": "", "items": [{"product_id": "y"}], "metadata": {}}
    request = make_create_request(CreateOrderRequest, "order", order, changes, {"pay_with_credit": True})
    assert request == CreateOrderRequest(
        order=Order(user_id="1", items=[OrderItem(product_id="y")]), pay_with_credit=True
    )
    assert order.external_ref == "a"


def test_an_update_changes_what_is_given_by_name() -> None:
    user = User(id="1", full_name="Ada", etag="v1", profile=UserProfile(bio="long", avatar_url="https://example.com"))
    request = make_update_request(UpdateUserRequest, "user", user, {"full_name": "", "profile": {"bio": ""}}, {})
    assert list(request.update_mask.paths) == ["full_name", "profile.bio"]
    assert request.user == User(id="1", etag="v1", profile=UserProfile(avatar_url="https://example.com"))
    whole = make_update_request(UpdateUserRequest, "user", "1", {"profile": UserProfile(), "etag": "v1"}, {})
    assert list(whole.update_mask.paths) == ["profile"]
    assert whole.user == User(id="1", etag="v1", profile=UserProfile())


def test_an_update_leaves_out_what_is_none_in_a_nested_message_too() -> None:
    user = User(id="1", profile=UserProfile(bio="long", avatar_url="https://example.com"))
    changes = {"profile": {"bio": None, "avatar_url": ""}}
    request = make_update_request(UpdateUserRequest, "user", user, changes, {})
    assert list(request.update_mask.paths) == ["profile.avatar_url"]
    assert request.user == User(id="1", profile=UserProfile(bio="long"))


def test_an_update_mask_is_the_callers_if_there_is_one() -> None:
    order = Order(id="1", external_ref="a")
    request = make_update_request(UpdateOrderRequest, "order", order, {}, {"update_mask": ["external_ref"]})
    assert list(request.update_mask.paths) == ["external_ref"]
    # A mask of one path as a text is what people try.
    assert request == make_update_request(UpdateOrderRequest, "order", order, {}, {"update_mask": "external_ref"})


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_request_ids_are_the_same_for_the_same_parts_only(parts: list[str], others: list[str]) -> None:
    assert str(UUID(derive_request_id(*parts))) == derive_request_id(*parts)
    assert (derive_request_id(*parts) == derive_request_id(*others)) == (parts == others)


@pytest.mark.parametrize("example", json.loads((ROOT / "clients" / "request_ids.json").read_text()))
def test_request_ids_are_those_of_clients_in_other_languages(example: dict[str, Any]) -> None:
    """The tests of the TypeScript client check the same file."""
    assert derive_request_id(*example["parts"]) == example["requestId"]


def test_request_ids_need_something_to_be_made_of() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        derive_request_id()
