"""Denies requests that set a field which needs a permission of its own, such as `user.superuser`."""

from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from commerce.common.v1.authorization_pb2 import permission_to_set
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from service.rpc.call_context import current_call
from service.rpc.identity.denials import denied
from service.rpc.identity.permissions import authorization_of
from service.rpc.identity.policy_file import PolicyFile
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request


@dataclass(frozen=True, slots=True)
class PrivilegedField:
    """A field of a request that needs a permission of its own.

    Attributes:
        path: the names of the fields that lead to it, for example `("user", "superuser")`.
        permission: the permission.
    """

    path: tuple[str, ...]
    permission: str

    def is_set(self, request: Any) -> bool:  # noqa: ANN401 - messages of different methods share no class
        """Return whether a request sets the field: by a value, or in an update by its mask."""
        mask = getattr(request, "update_mask", None)
        if mask is not None and mask.paths:
            inside = ".".join(self.path[1:])
            return any(path == "*" or f"{inside}.".startswith(f"{path}.") for path in mask.paths)
        message = request
        for name in self.path:
            if not any(field.name == name for field, _ in message.ListFields()):
                return False
            message = getattr(message, name)
        return True


class PrivilegedFieldsInterceptor(Interceptor):
    """Requires the permissions of the privileged fields that a request sets.

    Args:
        policies: the policy in force; None allows everything.
    """

    def __init__(self, policies: PolicyFile | None) -> None:
        self._policies = policies

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with this check, if its request has such a field."""
        if self._policies is None or not method.is_ours or method.descriptor is None:
            return call
        permission = authorization_of(method.descriptor).permission
        fields = [one for one in privileged_fields(method.descriptor.input_type) if one.permission != permission]
        # A call that is refused for load has a stream in place of its request. No method of ours that streams requests
        # has such a field.
        if not fields or method.request_streaming:
            return call
        policies = self._policies

        # Not a coroutine function: that would be one coroutine more for every call.
        def require_permissions(request: Request, context: Context) -> Coroutine[Any, Any, Message | bytes | None]:
            for field in fields:
                if field.is_set(request):
                    caller = current_call().caller
                    if field.permission not in policies.current[caller.name].permissions:
                        raise denied(field.permission, caller.name, f"it is needed to set {'.'.join(field.path)}")
            return call(request, context)

        return require_permissions


def privileged_fields(descriptor: Descriptor) -> Iterator[PrivilegedField]:
    """Yield the fields of a request, also inside other messages, that need a permission of their own."""
    for field in descriptor.fields:
        if permission := field.GetOptions().Extensions[permission_to_set]:
            yield PrivilegedField((field.name,), permission)
        inner = field.message_type
        # A field inside a list has no path; none of ours is privileged.
        if inner and not field.is_repeated and inner.full_name.startswith("commerce."):
            for one in privileged_fields(inner):
                yield PrivilegedField((field.name, *one.path), one.permission)
