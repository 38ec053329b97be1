"""Checks of messages against the `buf.validate` rules of their protos."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from service.domain.errors import FieldViolation
from service.rpc.messages.wire_sizes import size_violations

# Descriptions of the patterns in the protos for error messages: a regular expression is never shown to a client.
PATTERN_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        r"^\P{Cc}*$": "must not contain line breaks or other control characters",
        r"^[\r\n\t\P{Cc}]*$": "must not contain control characters other than line breaks and tabs",
        r"^[a-z0-9_.-]{3,50}$": "must be 3 to 50 of the characters a-z 0-9 _ . -",
        r"^[A-Za-z0-9_.-]{3,50}$": "must be 3 to 50 of the characters A-Z a-z 0-9 _ . -",
        r"^https?://[^\s\p{Cc}]+$": "must be an http or https URL without spaces",
        r"^[A-Z]{3}$": "must be a currency code of three capital letters, such as EUR",
    }
)
# In a message of at most this size, all violations are searched for.
_SMALL_BYTES = 512
# In a larger message than a small one, so many elements of a repeated field are checked, from the first wrong one.
_ELEMENTS = 16
# More than fit into a status.
_MAX_VIOLATIONS = 32

_validator = Validator()


def violations_of(message: Message) -> list[FieldViolation]:
    """Return the rule violations of a message, each with the path of its field.

    A violation takes several times as long as a valid element. So of a message that is not small, only the first few
    are returned: sizes before elements, and no elements long after the first wrong one.
    """
    first = _validator.collect_violations(message, fail_fast=True)
    if not first:
        return []
    if message.ByteSize() <= _SMALL_BYTES:
        return list(map(_field_violation, _validator.collect_violations(message)))
    descriptor: Any = message.DESCRIPTOR
    if too_large := size_violations(descriptor, message.SerializeToString()):
        return too_large
    part = type(message)()
    part.CopyFrom(message)
    shifted = _drop_elements_before(first[0], part)
    _shorten(part)
    found = _validator.collect_violations(part)[:_MAX_VIOLATIONS]
    return [_field_violation(violation, *shifted) for violation in found] or [_field_violation(first[0])]


def _drop_elements_before(violation: Violation, message: Any) -> tuple[str, int]:  # noqa: ANN401 - of any type
    """Remove the elements before the one of a violation; return the path of their field, and how many they were."""
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}"
        field = message.DESCRIPTOR.fields_by_name.get(element.field_name)
        if field is None:
            # The name is that of a oneof, which has no elements.
            break
        if field.is_repeated:
            if element.subscript and element.subscript.field == "index":
                del getattr(message, field.name)[: element.subscript.value]
                return path, element.subscript.value
            break
        message = getattr(message, field.name)
    return "", 0


def _shorten(message: Any) -> None:  # noqa: ANN401 - of any type
    """Remove all but the first elements of every repeated field, at any depth."""
    for field, value in message.ListFields():
        if not field.is_repeated:
            if field.message_type:
                _shorten(value)
        elif not (field.message_type and field.message_type.GetOptions().map_entry):
            del value[_ELEMENTS:]
            for element in value if field.message_type else ():
                _shorten(element)


def _field_violation(violation: Violation, shifted_path: str = "", shift: int = 0) -> FieldViolation:
    """Return a violation; the elements of the field at `shifted_path` had indexes that were greater by `shift`."""
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}"
        if element.subscript:
            value: Any = element.subscript.value
            path += f"[{value + shift if shift and path == shifted_path else value}]"
    description = proto.message or "is not valid"
    if proto.rule_id == "string.pattern":
        description = PATTERN_DESCRIPTIONS.get(violation.rule_value, "is not valid")
    # The name of the rule in the form that google.rpc.BadRequest requires, for example STRING_MAX_LEN.
    rule = (proto.rule_id or "").upper().replace(".", "_")
    return FieldViolation(path.lstrip("."), description, rule)
