from collections.abc import Iterable

import pytest
from commerce.orders.v1.order_pb2 import Order, OrderStatus
from commerce.users.v1.user_pb2 import User, UserState
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from service.domain.errors import InvalidUpdateMask
from service.domain.orders import OrderFields
from service.domain.users import UserFields
from service.rpc.messages.orders import parse_order_fields
from service.rpc.messages.update_masks import fields_to_update, settable_fields
from service.rpc.messages.users import parse_user_fields
from tests.support.clients import item

USER_FIELDS = {"email", "username", "full_name", "superuser", "profile.bio", "profile.avatar_url"}
ORDER_FIELDS = {"items", "external_ref", "metadata"}
# Messages with every field that a read returns, also those that a caller cannot set.
USER = User(
    id="01890000-0000-7000-8000-000000000001",
    email="ada@example.com",
    state=UserState.USER_STATE_ACTIVE,
    superuser=True,
    etag="v1",
    create_time=Timestamp(seconds=1),
    update_time=Timestamp(seconds=1),
    delete_time=Timestamp(seconds=1),
    purge_time=Timestamp(seconds=1),
)
ORDER = Order(
    id="01890000-0000-7000-8000-000000000002",
    order_number="ORD-1",
    user_id=USER.id,
    status=OrderStatus.ORDER_STATUS_PENDING,
    items=[item("anvil", 1, 1)],
    total_amount=item("anvil", 1, 1).unit_price,
    metadata={"a": "1"},
    tracking_number="TRACK-1",
    cancel_reason="changed my mind",
    etag="v1",
    create_time=Timestamp(seconds=1),
    update_time=Timestamp(seconds=1),
)
both = pytest.mark.parametrize(
    ("resource", "fields"), [(USER, USER_FIELDS), (ORDER, ORDER_FIELDS)], ids=["user", "order"]
)


def refused(resource: Message, paths: Iterable[str]) -> list[str]:
    """Return the violations, one text for each invalid path."""
    with pytest.raises(InvalidUpdateMask) as error:
        fields_to_update(resource, FieldMask(paths=paths))
    assert {violation.field for violation in error.value.violations} == {"update_mask"}
    return [violation.description for violation in error.value.violations]


@both
def test_callers_can_set_these_fields_and_no_others(resource: Message, fields: set[str]) -> None:
    assert settable_fields(resource) == fields


def test_the_fields_that_callers_can_set_are_those_of_the_entities() -> None:
    assert set(UserFields.__annotations__) == {field.removeprefix("profile.") for field in USER_FIELDS}
    assert set(OrderFields.__annotations__) == ORDER_FIELDS


def test_every_field_of_a_mask_gets_a_value() -> None:
    assert set(parse_user_fields(User(), settable_fields(User()))) == set(UserFields.__annotations__)
    assert set(parse_order_fields(Order(), settable_fields(Order()))) == ORDER_FIELDS


@pytest.mark.parametrize(
    ("resource", "set_fields"), [(USER, {"email", "superuser"}), (ORDER, {"items", "metadata"})], ids=["user", "order"]
)
def test_without_a_mask_the_fields_that_are_set_are_updated(resource: Message, set_fields: set[str]) -> None:
    assert fields_to_update(resource, None) == set_fields


@both
def test_without_a_mask_an_empty_message_updates_nothing(resource: Message, fields: set[str]) -> None:
    assert fields
    assert fields_to_update(type(resource)(), None) == set()


@both
def test_a_star_updates_all_fields(resource: Message, fields: set[str]) -> None:
    assert fields_to_update(resource, FieldMask(paths=["*"])) == fields
    assert fields_to_update(type(resource)(), FieldMask(paths=["*"])) == fields


@both
def test_a_mask_updates_the_fields_that_it_names_set_or_not(resource: Message, fields: set[str]) -> None:
    for field in fields:
        assert fields_to_update(resource, FieldMask(paths=[field])) == {field}
        assert fields_to_update(type(resource)(), FieldMask(paths=[field])) == {field}
    assert fields_to_update(resource, FieldMask(paths=sorted(fields))) == fields


def test_a_message_inside_stands_for_its_fields() -> None:
    assert fields_to_update(USER, FieldMask(paths=["profile"])) == {"profile.bio", "profile.avatar_url"}
    assert refused(USER, ["profile.hobby"])


def test_a_path_may_be_named_twice() -> None:
    assert fields_to_update(USER, FieldMask(paths=["email", "email"])) == {"email"}


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        *((USER, path) for path in ("id", "state", "create_time", "update_time", "delete_time", "purge_time", "etag")),
        *((ORDER, path) for path in ("id", "order_number", "user_id", "status", "total_amount", "tracking_number")),
        *((ORDER, path) for path in ("cancel_reason", "create_time", "update_time", "etag")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_field_that_callers_cannot_set_is_refused(resource: Message, path: str) -> None:
    (description,) = refused(resource, [path])
    assert description.startswith(f"{path} is not one of ")
    for field in settable_fields(resource):
        assert field in description


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (USER, "password"),
        (USER, "Email"),
        (USER, "fullName"),
        (USER, "email "),
        (USER, "user.email"),
        (USER, "user"),
        (USER, ""),
        (USER, "**"),
        (USER, "\N{PILE OF POO}"),
        (ORDER, "items[0]"),
        (ORDER, "items.quantity"),
        (ORDER, "metadata.a"),
        (ORDER, "email"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_path_that_is_no_field_is_refused(resource: Message, path: str) -> None:
    (description,) = refused(resource, [path])
    assert description.startswith(f"{path} is not one of ")


def test_a_star_beside_other_paths_is_refused() -> None:
    (description,) = refused(USER, ["*", "email"])
    assert description.startswith("* is not one of ")


def test_every_wrong_path_is_named() -> None:
    wrong = refused(USER, ["state", "email", "id", "nothing"])
    assert [text.partition(" ")[0] for text in wrong] == ["id", "nothing", "state"]


def test_a_long_path_is_cut() -> None:
    (description,) = refused(USER, ["x" * 100_000])
    assert len(description) < 200
