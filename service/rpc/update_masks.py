"""Update masks (AIP-134, AIP-161): which fields an update sets, checked against what the message declares."""

from functools import cache

from google.api.field_behavior_pb2 import IDENTIFIER, IMMUTABLE, OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from service.domain.errors import FieldViolation, InvalidUpdateMask

_NOT_SETTABLE = frozenset({IDENTIFIER, IMMUTABLE, OUTPUT_ONLY})


def fields_to_update(resource: Message, mask: FieldMask | None) -> frozenset[str]:
    """Return the names of the fields to set: those of the mask, all for `*`, those that are set if there is no mask.

    Raises:
        InvalidUpdateMask: the mask names a field that does not exist or that callers cannot set.
    """
    settable = settable_fields(resource)
    if mask is None:
        return settable & {field.name for field, _ in resource.ListFields()}
    paths = frozenset(mask.paths)
    if paths == {"*"}:
        return settable
    if wrong := sorted(paths - settable):
        allowed = ", ".join(sorted(settable))
        raise InvalidUpdateMask(
            [
                FieldViolation("update_mask", f"{path[:50]} is not one of {allowed}", "UPDATE_MASK_PATH")
                for path in wrong
            ]
        )
    return paths


def settable_fields(resource: Message) -> frozenset[str]:
    """Return the names of the fields that callers can set in a resource."""
    return _settable(resource.DESCRIPTOR)


@cache
def _settable(resource: Descriptor) -> frozenset[str]:
    # The etag is a condition of the update, not a part of it.
    return frozenset(
        field.name
        for field in resource.fields
        if field.name != "etag" and _NOT_SETTABLE.isdisjoint(field.GetOptions().Extensions[field_behavior])  # type: ignore[index] # stub of an older protobuf
    )
