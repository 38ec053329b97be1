"""UUIDs in requests, in one spelling.

Clients may write the digits of a UUID in upper case. Everything behind the validation sees them in lower case: body
digests, page tokens and cursors cover the bytes of a request, and ids are compared as text.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

# Changes a message in place.
Change = Callable[[Any], None]
T = TypeVar("T")

# The numbers of `(buf.validate.field).string.uuid` and `(buf.validate.field).repeated.items`. The rules are unknown
# fields of the options: no Python package contains their generated code for this runtime.
_RULES, _STRING, _UUID, _REPEATED, _ITEMS = 1159, 14, 22, 18, 4


def ids_in_lower_case(descriptor: Descriptor) -> Change:
    """Return the function that spells all UUIDs of a message of this type in lower case.

    UUIDs are the fields with the rule `string.uuid`, also inside other messages.
    """
    change = _change(descriptor, {})
    return change or _nothing


def _change(descriptor: Descriptor, known: dict[Descriptor, Change | None]) -> Change | None:
    """Return the function for a type, None if the type has no UUIDs; `known` has the types that were begun."""
    if descriptor in known:
        return known[descriptor]
    # A type inside itself: none of ours has UUIDs there.
    known[descriptor] = None
    names: list[str] = []
    lists: list[str] = []
    nested: dict[str, Change] = {}
    nested_lists: dict[str, Change] = {}
    for field in descriptor.fields:
        if field.message_type:
            # The keys and values of maps are never UUIDs.
            if not field.message_type.GetOptions().map_entry and (change := _change(field.message_type, known)):
                (nested_lists if field.is_repeated else nested)[field.name] = change
        elif _is_uuid(field):
            (lists if field.is_repeated else names).append(field.name)
    if lists or nested or nested_lists:
        known[descriptor] = partial(_apply, tuple(names), tuple(lists), nested, nested_lists)
    elif names:
        known[descriptor] = partial(_apply_to_fields, tuple(names))
    return known[descriptor]


def _is_uuid(field: FieldDescriptor) -> bool:
    rules = _value(field.GetOptions(), _RULES, b"")
    items = _value(_parsed(_value(_parsed(rules), _REPEATED, b"")), _ITEMS, b"")
    strings = (_value(_parsed(of), _STRING, b"") for of in (rules, items))
    return any(_value(_parsed(string), _UUID, 0) for string in strings)


def _parsed(data: bytes) -> Message:
    return Empty.FromString(data)


def _value(message: Message, number: int, default: T) -> T:
    # The stub does not say that the set can be iterated.
    fields: Any = UnknownFieldSet(message)
    return next((field.data for field in fields if field.field_number == number), default)


def _apply(
    names: tuple[str, ...],
    lists: tuple[str, ...],
    nested: Mapping[str, Change],
    nested_lists: Mapping[str, Change],
    message: Message,
) -> None:
    _apply_to_fields(names, message)
    for name in lists:
        values = getattr(message, name)
        # Of all together, because that takes half as long as of each.
        together = "".join(values)
        if together != together.lower():
            values[:] = [value.lower() for value in values]
    for name, change in nested.items():
        if message.HasField(name):
            change(getattr(message, name))
    for name, change in nested_lists.items():
        for element in getattr(message, name):
            change(element)


def _apply_to_fields(names: tuple[str, ...], message: Message) -> None:
    for name in names:
        value: str = getattr(message, name)
        # An id without letters is neither; setting it again changes nothing.
        if value and not value.islower():
            setattr(message, name, value.lower())


def _nothing(_message: Message) -> None:
    """Change nothing."""
