"""Which users and orders a response is about. A stored response is deleted when one of them is purged."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import MethodDescriptor

# The paths of the ids, by the field of the response that has the resource.
_IN_RESPONSE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"user": ("user.id",), "order": ("order.id",), "note": ("note.order_id", "note.author_id")}
)
# The fields of requests whose responses have no resource, for example those that move credit. Not `id`: PurgeUser is
# answered in the same way when it is repeated.
_IN_REQUEST = ("user_id", "from_user_id", "to_user_id")

# Takes the request and the response of a call.
Subjects = Callable[[Any, Any], tuple[UUID, ...]]


def subjects_of(method: MethodDescriptor) -> Subjects:
    """Return the function that returns the ids, at most two, for a call of a method."""
    fields = method.output_type.fields_by_name
    in_response = next((paths for name, paths in _IN_RESPONSE.items() if name in fields), ())
    if in_response:
        of_response = [attrgetter(path) for path in in_response]
        return lambda _request, response: tuple(UUID(value(response)) for value in of_response)
    of_request = [attrgetter(name) for name in _IN_REQUEST if name in method.input_type.fields_by_name]
    return lambda request, _response: tuple(UUID(value(request)) for value in of_request)
