"""Checks of messages against the `buf.validate` rules of their protos."""

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from service.domain.errors import FieldViolation

_validator = Validator()


def violations_of(message: Message) -> list[FieldViolation]:
    """Return which fields of a message break a rule, by their paths in the message."""
    return [_field_violation(violation) for violation in _validator.collect_violations(message)]


def _field_violation(violation: Violation) -> FieldViolation:
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}"
        if element.subscript:
            path += f"[{element.subscript.value}]"
    # The name of the rule in the form that google.rpc.BadRequest wants, for example STRING_MAX_LEN.
    rule = (proto.rule_id or "").upper().replace(".", "_")
    return FieldViolation(path.lstrip("."), proto.message or "is wrong", rule)
