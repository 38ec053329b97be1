"""Checks of messages against the `buf.validate` rules of their protos."""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from service.domain.errors import FieldViolation

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

_validator = Validator()


def violations_of(message: Message) -> list[FieldViolation]:
    """Return the rule violations of a message, each with the path of its field."""
    return [_field_violation(violation) for violation in _validator.collect_violations(message)]


def _field_violation(violation: Violation) -> FieldViolation:
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}"
        if element.subscript:
            path += f"[{element.subscript.value}]"
    description = proto.message or "is not valid"
    if proto.rule_id == "string.pattern":
        description = PATTERN_DESCRIPTIONS.get(violation.rule_value, "is not valid")
    # The name of the rule in the form that google.rpc.BadRequest requires, for example STRING_MAX_LEN.
    rule = (proto.rule_id or "").upper().replace(".", "_")
    return FieldViolation(path.lstrip("."), description, rule)
