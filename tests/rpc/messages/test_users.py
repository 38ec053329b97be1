"""Conversions of users from and to messages."""

from datetime import UTC, datetime
from typing import Any

from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2 import BatchGetUsersResponse
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from service.rpc.messages.users import MAX_USER_BYTES
from tests.support.protos import rules_of

LATEST = Timestamp()
LATEST.FromDatetime(datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC))


def longest(descriptor: Descriptor) -> dict[str, Any]:
    """Return the fields of a message, each with the longest value that its type and its rules allow."""
    return {field.name: _longest(field) for field in descriptor.fields}


def _longest(field: FieldDescriptor) -> Any:
    if field.message_type:
        return LATEST if field.message_type.name == "Timestamp" else longest(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        # The server sets ids and etags, which have no rules.
        return "\U0001f600" * (rules_of(field).string.max_len or 36)
    return max(value.number for value in field.enum_type.values) if field.enum_type else 1


def test_no_user_is_larger_than_the_maximum_size() -> None:
    response = BatchGetUsersResponse(users=[User(**longest(User.DESCRIPTOR))])
    assert 0.8 * MAX_USER_BYTES <= response.ByteSize() <= MAX_USER_BYTES
