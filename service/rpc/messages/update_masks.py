"""Update masks (AIP-134, AIP-161): the fields that an update sets, checked against the field behaviors of the proto."""

from collections.abc import Mapping
from functools import cache

from google.api.field_behavior_pb2 import IDENTIFIER, IMMUTABLE, OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from service.domain.errors import FieldViolation, InvalidUpdateMask

_NOT_SETTABLE = frozenset({IDENTIFIER, IMMUTABLE, OUTPUT_ONLY})


def fields_to_update(resource: Message, mask: FieldMask | None) -> frozenset[str]:
    """Return the paths of the fields to set.

    These are the paths in the mask; or all settable fields if the mask is `*`; or, without a mask, the fields that have
    a value in the resource. The path of a nested message stands for all of its fields: `profile` means `profile.bio`
    and `profile.avatar_url`.

    Raises:
        InvalidUpdateMask: the mask names a field that does not exist or that clients cannot set.
    """
    paths = frozenset(mask.paths) if mask else frozenset()
    if not paths:
        return frozenset(path for path in settable_fields(resource) if _is_set(resource, path))
    if paths == {"*"}:
        return settable_fields(resource)
    settable = _settable(resource.DESCRIPTOR)
    if wrong := sorted(paths - settable.keys()):
        allowed = ", ".join(sorted(settable))
        raise InvalidUpdateMask(
            [
                FieldViolation("update_mask", f"{path[:50]} is not one of {allowed}", "UPDATE_MASK_PATH")
                for path in wrong
            ]
        )
    return frozenset().union(*(settable[path] for path in paths))


def settable_fields(resource: Message) -> frozenset[str]:
    """Return the paths of all fields that clients can set in a resource."""
    return frozenset().union(*_settable(resource.DESCRIPTOR).values())


def _is_set(resource: Message, path: str) -> bool:
    outer, _, inner = path.partition(".")
    if inner:
        return _is_set(getattr(resource, outer), inner)
    return any(field.name == outer for field, _ in resource.ListFields())


@cache
def _settable(resource: Descriptor) -> Mapping[str, frozenset[str]]:
    """Return the paths that a mask may contain, each with the paths of the fields that it sets."""
    settable: dict[str, frozenset[str]] = {}
    for field in resource.fields:
        behaviors: list[int] = field.GetOptions().Extensions[field_behavior]  # type: ignore[index] # stub of an older protobuf
        # The etag is a condition of the update, not a field that it sets.
        if field.name == "etag" or not _NOT_SETTABLE.isdisjoint(behaviors):
            continue
        if field.message_type and not field.is_repeated and field.message_type.full_name.startswith("commerce."):
            inner = [f"{field.name}.{path}" for path in _settable(field.message_type)]
            settable |= {path: frozenset({path}) for path in inner}
            settable[field.name] = frozenset(inner)
        else:
            settable[field.name] = frozenset({field.name})
    return settable
