"""Request and response messages as JSON, in protobuf's JSON format, with errors that name the field.

The fields of a request are looked up before it is parsed. So its unknown fields are refused by their paths, and a
request of very many values is refused without a message for each.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from service.http.failures import invalid_field, malformed
from service.http.methods import HttpMethod

# Several times those of the largest valid request, an order of 500 items.
MAX_VALUES = 20_000
# The names of an enum that an error lists.
_NAMED_VALUES = 20
# Parsed as a whole, because their JSON is not an object of their fields.
_WELL_KNOWN = "google.protobuf."

_WRONG_NUMBER = "must be a whole number between {} and {}"
_PROBLEMS = {
    FieldDescriptor.CPPTYPE_INT32: _WRONG_NUMBER.format(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: _WRONG_NUMBER.format(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: _WRONG_NUMBER.format(-(2**63), 2**63 - 1) + ", as a number or a string",
    FieldDescriptor.CPPTYPE_UINT64: _WRONG_NUMBER.format(0, 2**64 - 1) + ", as a number or a string",
    FieldDescriptor.CPPTYPE_DOUBLE: "must be a number",
    FieldDescriptor.CPPTYPE_FLOAT: "must be a number",
    FieldDescriptor.CPPTYPE_BOOL: "must be true or false",
    FieldDescriptor.CPPTYPE_STRING: "must be a string",
}
_WELL_KNOWN_PROBLEMS = {
    "google.protobuf.Timestamp": "must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "must be a number of seconds with an s, such as 1.5s",
    "google.protobuf.FieldMask": "must be the names of fields, separated by commas",
}


def parse_request(method: HttpMethod, body: bytes) -> bytes:
    """Return the request of a method, serialized, given its JSON.

    Raises:
        CallFailed: it is not JSON, or not the method's request message.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = "" if body else "; a request without fields is {}"
        raise malformed(f"the request is not JSON: {error}{hint}") from error
    if not isinstance(value, dict):
        raise malformed("the request must be a JSON object")
    for number, _ in enumerate(_checked(method.request.DESCRIPTOR, value, ""), 2):
        if number > MAX_VALUES:
            raise malformed(f"the request has more than {MAX_VALUES} values")
    message = method.request()
    try:
        ParseDict(value, message)
    except (ParseError, ValueError, TypeError) as error:
        path, problem = _wrong_field(method.request.DESCRIPTOR, value, "") or ("", "is not the method's request")
        raise (invalid_field(path, problem) if path else malformed(f"the request {problem}")) from error
    serialized: bytes = message.SerializeToString()
    return serialized


def response_json(method: HttpMethod, response: bytes) -> bytes:
    """Return a serialized response of a method as JSON."""
    return orjson.dumps(MessageToDict(method.response.FromString(response)))


def _checked(message: Descriptor, value: dict[str, Any], path: str) -> Iterator[None]:
    """Yield once for each value below an object; raises CallFailed for an unknown field, or another form of value."""
    set_fields: set[str] = set()
    for field, key, at in _fields(message, value, path):
        yield
        content = value[key]
        if content is None:
            continue
        _check_set_once(field, at, path, set_fields)
        entry = _map_value(field)
        if entry is not None:
            if not isinstance(content, dict):
                raise invalid_field(at, "must be an object")
            for name, element in content.items():
                yield
                yield from _checked_element(entry, element, f'{at}["{name}"]')
        elif field.is_repeated:
            if not isinstance(content, list):
                raise invalid_field(at, "must be a list")
            for index, element in enumerate(content):
                yield
                yield from _checked_element(field, element, f"{at}[{index}]")
        else:
            yield from _checked_element(field, content, at)


def _check_set_once(field: FieldDescriptor, at: str, path: str, set_fields: set[str]) -> None:
    """Check that a field, or another one of its oneof, has not been set before: a field has two names in JSON."""
    oneof = field.containing_oneof
    name = oneof.name if oneof else field.name
    if name in set_fields:
        names = [other.name for other in oneof.fields] if oneof else []
        if len(names) > 1:
            raise invalid_field(path, f"only one of {', '.join(names)} can be set")
        raise invalid_field(at, "is set twice")
    set_fields.add(name)


def _checked_element(field: FieldDescriptor, value: object, path: str) -> Iterator[None]:
    if field.message_type is None or field.message_type.full_name.startswith(_WELL_KNOWN):
        # What is inside is no value of such a field. (No request has a google.protobuf.Struct.)
        if isinstance(value, (dict, list)):
            raise invalid_field(path, _problem(field))
    elif isinstance(value, dict):
        yield from _checked(field.message_type, value, path)
    else:
        raise invalid_field(path, "must be an object")


def _fields(message: Descriptor, value: dict[str, Any], path: str) -> Iterator[tuple[FieldDescriptor, str, str]]:
    """Yield the field, the key and the path of each value of an object; raises CallFailed for an unknown field."""
    for key in value:
        field = message.fields_by_camelcase_name.get(key) or message.fields_by_name.get(key)
        if field is None:
            similar = get_close_matches(key, [*message.fields_by_camelcase_name, *message.fields_by_name], 1)
            hint = f"; is it {similar[0]}?" if similar else ""
            raise invalid_field(_below(path, key), f"there is no field of this name{hint}")
        yield field, key, _below(path, field.name)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the field of the values of a map; None for a field that is no map."""
    entry = field.message_type
    return entry.fields_by_name["value"] if entry is not None and entry.GetOptions().map_entry else None


def _wrong_field(message: Descriptor, value: dict[str, Any], path: str) -> tuple[str, str] | None:
    """Return the path of the first field that cannot be parsed, and what is wrong with it.

    Protobuf's own message names neither in a form that a caller understands, so each field is parsed by itself.
    """
    for field, key, at in _fields(message, value, path):
        content = value[key]
        try:
            ParseDict({key: content}, GetMessageClass(message)())
        except (ParseError, ValueError, TypeError):
            inner = _wrong_element(field, key, content, at, message)
            return inner or (at, _problem(field))
    return None


def _wrong_element(
    field: FieldDescriptor, key: str, content: object, path: str, message: Descriptor
) -> tuple[str, str] | None:
    if isinstance(content, list):
        for index, element in enumerate(content):
            try:
                ParseDict({key: [element]}, GetMessageClass(message)())
            except (ParseError, ValueError, TypeError):
                at = f"{path}[{index}]"
                return _wrong_element(field, key, element, at, message) or (at, _problem(field))
    if isinstance(content, dict) and field.message_type is not None and _map_value(field) is None:
        return _wrong_field(field.message_type, content, path)
    return None


def _problem(field: FieldDescriptor) -> str:
    """Return what a value of a field must be."""
    entry = _map_value(field)
    if entry is not None:
        return f"each value {_problem(entry)}"
    if field.message_type is not None:
        return _WELL_KNOWN_PROBLEMS.get(field.message_type.full_name, "is wrong")
    if field.enum_type is not None:
        names = [value.name for value in field.enum_type.values]
        if len(names) <= _NAMED_VALUES:
            return f"must be one of {', '.join(names)}"
        return "must be the name of a value of its enum"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "must be bytes in base64"
    return _PROBLEMS.get(field.cpp_type, "is wrong")
