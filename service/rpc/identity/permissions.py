"""The permissions that the protos declare, read from the descriptors of our methods."""

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from commerce.common.v1.authorization_pb2 import Authorization, authorization
from commerce.orders.v1 import order_service_pb2
from commerce.users.v1 import user_service_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

# The permission to act for end users (`x-on-behalf-of`). No method declares it.
ACT_FOR_USERS = "act_for_users"
# Follows a permission that is limited to what belongs to the user for whom the caller acts: `orders.read:own`.
OWN_SUFFIX = ":own"


class UndeclaredPermission(Exception):
    """A method of ours names no permission, so nobody could be allowed to call it."""


def methods() -> Iterator[MethodDescriptor]:
    """Yield all methods of this API."""
    for file in (user_service_pb2.DESCRIPTOR, order_service_pb2.DESCRIPTOR):
        services: Mapping[str, ServiceDescriptor] = file.services_by_name
        for service in services.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    """Return the path of a method, for example `/commerce.users.v1.UserService/GetUser`."""
    return f"/{method.containing_service.full_name}/{method.name}"


def authorization_of(method: MethodDescriptor) -> Authorization:
    """Return what a method declares: its permission, and how it is limited to one user.

    Raises:
        UndeclaredPermission: it declares no permission.
    """
    declared = method.GetOptions().Extensions[authorization]
    if not declared.permission:
        message = f"{method.full_name} has no option (commerce.common.v1.authorization) with a permission"
        raise UndeclaredPermission(message)
    return declared


def can_be_limited(method: MethodDescriptor) -> bool:
    """Return whether a method can be limited to what belongs to one user."""
    return authorization_of(method).HasField("own")


@cache
def permissions() -> Mapping[str, bool]:
    """Return all permissions, sorted by name, each with whether it can be limited to one user (`:own`)."""
    found = {ACT_FOR_USERS: False}
    for method in methods():
        name = authorization_of(method).permission
        found[name] = found.get(name, False) or can_be_limited(method)
    return MappingProxyType(dict(sorted(found.items())))
