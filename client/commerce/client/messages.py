"""Requests from what callers write: plain values, nested dicts, or messages.

What each field takes follows from the descriptors, and is worked out once for each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from commerce.client.values import Id, Money

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Request = TypeVar("Request", bound=Message)


def make_request(kind: type[Request], fields: Mapping[str, Any]) -> Request:
    """Return a request with these fields; those that are None are left out.

    Raises:
        TypeError: a value is of a kind that the field does not take, or not exactly one of some alternatives is given.
        ValueError: a value cannot be converted.
    """
    for alternatives in _alternatives(kind.DESCRIPTOR):
        if sum(fields.get(name) is not None for name in alternatives) != 1:
            raise TypeError(f"give exactly one of {', '.join(alternatives)}")
    return kind(**_converted(kind.DESCRIPTOR, fields))


def make_create_request(
    kind: type[Request], resource: str, message: Message | None, changes: Mapping[str, Any], fields: Mapping[str, Any]
) -> Request:
    """Return a request that creates a resource.

    Args:
        kind: the class of the request.
        resource: the field with the resource.
        message: the resource as a message; None for an empty one.
        changes: fields to set in it; those that are None are not set.
        fields: other fields of the request.
    """
    request = make_request(kind, fields)
    target = getattr(request, resource)
    if message is not None:
        target.CopyFrom(message)
    _assign(target, changes)
    # A resource without any field is there, too.
    target.SetInParent()
    return request


def make_update_request(
    kind: type[Request], resource: str, target: Message | Id, changes: Mapping[str, Any], fields: Mapping[str, Any]
) -> Request:
    """Return a request that updates a resource.

    Args:
        kind: the class of the request.
        resource: the field with the resource.
        target: the resource as a message, whose etag is then a condition of the update; or its id.
        changes: fields to set; those that are None are not set. They are the update mask, unless `fields` has one.
        fields: other fields of the request.
    """
    request = make_request(kind, fields)
    message = getattr(request, resource)
    if isinstance(target, Message):
        message.CopyFrom(target)
    else:
        message.id = str(target)
    _assign(message, changes)
    if not request.update_mask.paths:  # type: ignore[attr-defined] # every update has one
        request.update_mask.paths.extend(_paths(message, changes))  # type: ignore[attr-defined]
    return request


def _paths(message: Message, changes: Mapping[str, Any]) -> Iterable[str]:
    """Return the paths of the fields that are set. The etag is a condition, not a change."""
    for name, value in _given(message, changes).items():
        if name == "etag":
            continue
        if _is_part(message, name, value):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _given(message: Message, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes without what is None, also in the dicts of nested messages."""
    given = {}
    for name, value in changes.items():
        if value is None:
            continue
        if not _is_part(message, name, value):
            given[name] = value
        elif inner := {key: part for key, part in value.items() if part is not None}:
            given[name] = inner
    return given


def _is_part(message: Message, name: str, value: Any) -> bool:
    """Return whether the value is a dict with some fields of a nested message, which sets only these."""
    return isinstance(value, Mapping) and bool(value) and not message.DESCRIPTOR.fields_by_name[name].is_repeated


def _assign(message: Message, changes: Mapping[str, Any]) -> None:
    """Set fields of a message, in place of their values."""
    given = _given(message, changes)
    # First, so that a field that does not exist is named.
    values = type(message)(**_converted(message.DESCRIPTOR, given))
    for name, value in given.items():
        if _is_part(message, name, value):
            nested = getattr(message, name)
            for inner in value:
                nested.ClearField(inner)
        else:
            message.ClearField(name)
    # Setting to an empty value is to clear, which is done; merging leaves empty values out.
    message.MergeFrom(values)


def _converted(descriptor: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    converters = _converters(descriptor)
    try:
        return {name: converters[name](value) for name, value in fields.items() if value is not None}
    except KeyError as error:
        raise TypeError(f"{descriptor.name} has no field {error}") from None


@cache
def _alternatives(descriptor: Descriptor) -> list[list[str]]:
    """Return the names of the fields of each `oneof`."""
    # An optional field is in a oneof of its own, whose name begins with an underscore.
    oneofs = [oneof for oneof in descriptor.oneofs if not oneof.name.startswith("_")]
    return [[field.name for field in oneof.fields] for oneof in oneofs]


@cache
def _converters(descriptor: Descriptor) -> Mapping[str, Callable[[Any], Any]]:
    """Return for each field what makes of a plain value one that the constructor of the message accepts."""
    return {field.name: _converter(field) for field in descriptor.fields}


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict
    one = _of_one(field)
    if not field.is_repeated:
        return one

    def many(values: Iterable[Any]) -> list[Any]:
        if isinstance(values, str | bytes | Mapping):
            raise TypeError(f"{field.name} must be several values, not {values!r}")
        return [one(value) for value in values]

    return many


def _of_one(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        return _enum_converter(field.name, field.enum_type)
    if field.message_type is not None:
        known = _MESSAGES.get(field.message_type.full_name)
        return known if known is not None else _message_converter(field)
    return _text if field.type == field.TYPE_STRING else _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def _enum_converter(name: str, enum: EnumDescriptor) -> Callable[[Any], Any]:
    numbers = {value.name: value.number for value in enum.values}
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    numbers |= {name.removeprefix(prefix): number for name, number in numbers.items()}

    def number_of(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return numbers[value]
        except KeyError:
            raise ValueError(f"{name} cannot be {value!r}") from None

    return number_of


def _message_converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    message_type = field.message_type

    def convert(value: Any) -> Any:
        return _converted(message_type, value) if isinstance(value, Mapping) else value

    return convert


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2  # noqa: PLR2004 - a pair


def _money(value: Any) -> Any:
    if isinstance(value, Money):
        return value.to_message()
    if _is_pair(value):
        return Money(*value).to_message()
    return value


def _timestamp(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        message = Timestamp()
        message.FromDatetime(value)
        return message
    return value


def _interval(value: Any) -> Any:
    if _is_pair(value):
        start, end = value
        bounds = {"start_time": start, "end_time": end}
        return {name: _timestamp(bound) for name, bound in bounds.items() if bound is not None}
    return value


def _field_mask(value: Any) -> Any:
    if isinstance(value, str):
        return {"paths": [value]}
    return {"paths": list(value)} if isinstance(value, Iterable) else value


_MESSAGES: Mapping[str, Callable[[Any], Any]] = {
    "google.type.Money": _money,
    "google.protobuf.Timestamp": _timestamp,
    "google.type.Interval": _interval,
    "google.protobuf.FieldMask": _field_mask,
}
