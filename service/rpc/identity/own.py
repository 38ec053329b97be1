"""What belongs to one user: what a request refers to, and to whom the messages of a response belong.

The protos declare both (`commerce/common/v1/authorization.proto`): the option `own` of a method names the fields of its
request that refer to something, and the option `owner` of a message names its field with the owner.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from commerce.common.v1.authorization_pb2 import owner
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from service.rpc.identity.permissions import authorization_of

# Takes a request, and returns the values of some of its fields that are set.
_Values = Callable[[Any], Sequence[str]]
# The id of a user and that of an order: a message belongs to the user, and to whom the order belongs.
Owners = tuple[str, str]


class UnknownField(Exception):
    """An option of the protos names a field that does not exist."""


@dataclass(frozen=True, slots=True)
class References:
    """What a request refers to: the ids of users, orders and notes, and other keys of at most one of them."""

    users: Sequence[str]
    orders: Sequence[str]
    notes: Sequence[str]
    order_numbers: Sequence[str]
    emails: Sequence[str]
    usernames: Sequence[str]

    def __bool__(self) -> bool:
        return any((self.users, self.orders, self.notes, self.order_numbers, self.emails, self.usernames))


class OwnRequests:
    """Limits the requests of a method to what belongs to one user.

    Args:
        method: a method with the option `own`.

    Raises:
        UnknownField: the option names a field that the request does not have.
    """

    def __init__(self, method: MethodDescriptor) -> None:
        own, request = authorization_of(method).own, method.input_type
        self._filter = _field(request, own.user_filter) if own.user_filter else None
        self._users = _values(request, [*own.user_id, *([own.user_filter] if own.user_filter else [])])
        self._orders = _values(request, own.order_id)
        self._notes = _values(request, own.note_id)
        self._order_numbers = _values(request, [own.order_number] if own.order_number else [])
        self._emails = _values(request, [own.email] if own.email else [])
        self._usernames = _values(request, [own.username] if own.username else [])

    def narrow(self, request: Any, user_id: str) -> None:  # noqa: ANN401 - messages of different methods share no class
        """Set the filter by user to this user, unless it is set."""
        if self._filter is None or getattr(request, self._filter.name):
            return
        if self._filter.is_repeated:
            getattr(request, self._filter.name).append(user_id)
        else:
            setattr(request, self._filter.name, user_id)

    def references(self, request: Message) -> References:
        """Return what a request refers to."""
        return References(
            users=self._users(request),
            orders=self._orders(request),
            notes=self._notes(request),
            order_numbers=self._order_numbers(request),
            emails=self._emails(request),
            usernames=self._usernames(request),
        )


def owners_in(descriptor: Descriptor) -> Callable[[Message], Iterator[Owners]] | None:
    """Return the function that yields the owners of all messages inside a message of this type; None without any.

    Raises:
        UnknownField: the option `owner` of a message names a field that the message does not have.
    """
    return _owners_in(descriptor, {})


def _owners_in(
    descriptor: Descriptor, known: dict[Descriptor, Callable[[Any], Iterator[Owners]] | None]
) -> Callable[[Any], Iterator[Owners]] | None:
    """Return the function for a type; `known` has the types that were begun, because a type may contain itself."""
    if descriptor in known:
        return known[descriptor]
    known[descriptor] = None
    declared = descriptor.GetOptions().Extensions[owner]
    if declared.user_id:
        for name in filter(None, (declared.user_id, declared.order_id)):
            _field(descriptor, name)
        known[descriptor] = partial(_owner_of, declared.user_id, declared.order_id)
        return known[descriptor]
    inner = [
        (field, found)
        for field in descriptor.fields
        if field.message_type and (found := _owners_in(field.message_type, known))
    ]
    if inner:
        known[descriptor] = partial(_owners_of_fields, inner)
    return known[descriptor]


def _owner_of(user_field: str, order_field: str, message: Message) -> Iterator[Owners]:
    yield getattr(message, user_field), getattr(message, order_field) if order_field else ""


def _owners_of_fields(
    inner: Iterable[tuple[FieldDescriptor, Callable[[Any], Iterator[Owners]]]], message: Message
) -> Iterator[Owners]:
    for field, owners in inner:
        value = getattr(message, field.name)
        if field.is_repeated:
            for element in value:
                yield from owners(element)
        elif message.HasField(field.name):
            yield from owners(value)


def _values(request: Descriptor, paths: Iterable[str]) -> _Values:
    getters = [(attrgetter(path), _field(request, path).is_repeated) for path in paths]

    def values(message: Message) -> list[str]:
        found: list[str] = []
        for get, is_repeated in getters:
            value = get(message)
            if is_repeated:
                found += value
            elif value:
                found.append(value)
        return found

    return values


def _field(descriptor: Descriptor, path: str) -> FieldDescriptor:
    """Return the field of a path such as `order.user_id`."""
    outer, _, inner = path.partition(".")
    field = descriptor.fields_by_name.get(outer)
    if field is None or (inner and not field.message_type):
        message = f"{descriptor.full_name} has no field {path}"
        raise UnknownField(message)
    return _field(field.message_type, inner) if inner and field.message_type else field
