"""Every method says what a caller needs, and whose everything is that it takes and returns."""

import re
from collections.abc import Iterator

import pytest
from commerce.common.v1.authorization_pb2 import owner
from google.api.field_behavior_pb2 import IDENTIFIER, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from service.rpc.identity.own import OwnRequests, owners_in
from service.rpc.identity.permissions import (
    ACT_FOR_USERS,
    OWN_SUFFIX,
    authorization_of,
    can_be_limited,
    methods,
    path_of,
    permissions,
)
from service.rpc.interceptors.privileged_fields import privileged_fields
from tests.support.methods import ALL_METHODS
from tests.support.paths import ROOT
from tests.support.protos import rules_of

METHODS = {method.name: method for method in methods()}
LIMITED = {name: method for name, method in METHODS.items() if can_be_limited(method)}
# Keys beside ids, by which a request can refer to something.
OTHER_KEYS = {"email", "username", "order_number"}
# Fields that look like references, and are none, with the reason.
NO_REFERENCES = {
    "request_id": "the caller's own",
    "order.id": "the server assigns the id of a new order, and ignores this one",
    "order.order_number": "output only",
    "note.id": "the server assigns the id of a new note, and ignores this one",
    "user.email": "a new value",
    "user.username": "a new value",
}
# Responses of methods that can be limited in which nothing has an owner, with the reason why they are the user's.
WITHOUT_OWNERS = {
    "GetCreditBalance": "of the user in the request",
    "DeleteOrderNote": "empty",
}
# Fields with the id of a user or of what belongs to one, in messages without an owner.
NOT_OWNERS: set[str] = set()

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_limited_method = pytest.mark.parametrize("method", LIMITED.values(), ids=LIMITED)


def test_all_methods_are_looked_at() -> None:
    assert set(METHODS) == set(ALL_METHODS)
    assert len(METHODS) == 44


@every_method
def test_a_method_declares_a_permission(method: MethodDescriptor) -> None:
    assert re.fullmatch(r"(users|orders|notes|credit)\.[a-z]+", authorization_of(method).permission)


def test_every_permission_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*?) \|$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"\w+", listed)) for name, listed, _ in rows}
    limited = {name: set(re.findall(r"\w+", listed)) for name, _, listed in rows}
    assert documented.keys() == permissions().keys()
    for permission in permissions().keys() - {ACT_FOR_USERS}:
        of_permission = [method for method in METHODS.values() if authorization_of(method).permission == permission]
        assert documented[permission] == {method.name for method in of_permission}, permission
        assert limited[permission] == {method.name for method in of_permission if can_be_limited(method)}, permission
    comment = (ROOT / "protos/commerce/common/v1/authorization.proto").read_text()
    assert set(re.findall(r"//   `([a-z_.]+)`", comment)) == permissions().keys()


@every_limited_method
def test_what_a_limited_method_refers_to_exists(method: MethodDescriptor) -> None:
    # Both raise UnknownField for a wrong path.
    OwnRequests(method)
    assert (owners_in(method.output_type) is None) == (method.name in WITHOUT_OWNERS)
    # Its interceptor sees one request.
    assert not method.client_streaming


@every_limited_method
def test_a_limited_request_names_the_owner_of_everything_that_it_refers_to(method: MethodDescriptor) -> None:
    own = authorization_of(method).own
    named = {*own.user_id, *own.order_id, *own.note_id, own.user_filter, own.email, own.username, own.order_number}
    found = {path for path in references_in(method.input_type) if path not in NO_REFERENCES or path in named}
    assert found == named - {""}


@every_limited_method
def test_a_limited_request_always_refers_to_something(method: MethodDescriptor) -> None:
    """Without a reference a call is denied, so a request that needs none has a filter, which the limit sets."""
    own = authorization_of(method).own
    assert own.user_filter or own.user_id or own.order_id or own.note_id
    if own.user_filter:
        # A filter by user is not enough for a request that also refers to the user in another way.
        assert not own.user_id


@every_limited_method
def test_everything_that_has_a_user_in_a_limited_response_says_whose_it_is(method: MethodDescriptor) -> None:
    assert {field.full_name for field in fields_without_owner(method.output_type)} == NOT_OWNERS


def test_only_these_fields_need_permissions_of_their_own() -> None:
    found = {
        (name, ".".join(field.path)): field.permission
        for name, method in METHODS.items()
        for field in privileged_fields(method.input_type)
    }
    assert found == {
        ("CreateUser", "user.superuser"): "users.admin",
        ("UpdateUser", "user.superuser"): "users.admin",
        ("ImportUsers", "row.superuser"): "users.admin",
        ("CreateUser", "welcome_credit"): "credit.grant",
    }
    assert set(found.values()) <= permissions().keys()
    # The interceptor does not read streams of requests: such a method has the same permission itself.
    streaming = [name for name, method in METHODS.items() if method.client_streaming]
    assert {authorization_of(METHODS[name]).permission for name, _ in found if name in streaming} == {"users.admin"}


def test_permissions_that_give_others_more_than_they_have_cannot_be_limited() -> None:
    """With one of these, also limited to itself, a user could have more than the policy gives it."""
    limited = {name for name, limited in permissions().items() if limited}
    assert limited.isdisjoint({ACT_FOR_USERS, "users.admin", "users.verify", "credit.grant", "orders.process"})


def test_paths_are_those_of_grpc() -> None:
    assert path_of(METHODS["GetUser"]) == "/commerce.users.v1.UserService/GetUser"
    assert OWN_SUFFIX == ":own"


def references_in(message: Descriptor, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all fields of a request that can refer to something."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        inner = field.message_type
        if inner and inner.full_name.startswith("commerce.") and not inner.GetOptions().map_entry:
            assert not field.is_repeated or not [*references_in(inner)], "no path leads into a list"
            yield from references_in(inner, f"{path}.")
        elif field.name in OTHER_KEYS or is_id(field):
            yield path


def is_id(field: FieldDescriptor) -> bool:
    rules = rules_of(field)
    return bool(rules.string.uuid or rules.repeated.items.string.uuid)


def fields_without_owner(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    """Yield the fields with the id of a user, or with an identifier, in messages that do not say whose they are."""
    if message.full_name in seen or message.GetOptions().Extensions[owner].user_id:
        return
    for field in message.fields:
        behaviors: list[int] = field.GetOptions().Extensions[field_behavior]  # type: ignore[index] # stub of an older protobuf
        if IDENTIFIER in behaviors or re.fullmatch(r"(.*_)?(user|author|order|note)_ids?", field.name):
            yield field
        if field.message_type:
            yield from fields_without_owner(field.message_type, seen | {message.full_name})
