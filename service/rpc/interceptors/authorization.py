"""Denies the calls that the policy does not allow, before anything about them is read."""

from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast
from uuid import UUID

from google.protobuf.message import Message

from service.domain.errors import PermissionMissing
from service.rpc.call_context import CallContext, current_call
from service.rpc.identity.caller import Caller
from service.rpc.identity.denials import Denials, denied
from service.rpc.identity.permissions import ACT_FOR_USERS, UndeclaredPermission, authorization_of, can_be_limited
from service.rpc.identity.policy import Grants
from service.rpc.identity.policy_file import PolicyFile
from service.rpc.interceptors.base import Interceptor
from service.rpc.interceptors.checked_context import CheckedContext
from service.rpc.interceptors.privileged_fields import privileged_fields
from service.rpc.methods import Call, Context, Method, Request

# Health is always open. The setting for reflection decides whether and to whom it is served.
_OPEN = ("/grpc.health.", "/grpc.reflection.")


class AuthorizationInterceptor(Interceptor):
    """Allows the calls for which the policy grants the permission that the method declares.

    A stream is checked again with its next message after the policy has changed.

    Args:
        policies: the policy in force; None allows everything.

    Attributes:
        denials: counts the denied calls, also those that interceptors inside this one deny.
    """

    def __init__(self, policies: PolicyFile | None) -> None:
        self._policies = policies
        self.denials = Denials()

    def require_act_for_users(self, path: str, caller: Caller) -> None:
        """Require that a caller may act for users (`x-on-behalf-of`); raises PermissionMissing.

        Args:
            path: the path of the method that it calls.
            caller: the caller.
        """
        if self._policies and ACT_FOR_USERS not in self._policies.current[caller.name].permissions:
            error = denied(ACT_FOR_USERS, caller.name)
            self.denials.record(path, error)
            raise error

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its authorization.

        Raises:
            UndeclaredPermission: the method declares no permission, so nobody could call it.
        """
        if method.path.startswith(_OPEN) or self._policies is None:
            return call
        if method.descriptor is None:
            raise UndeclaredPermission(method.path)
        policies, path, denials = self._policies, method.path, self.denials
        permission = authorization_of(method.descriptor).permission
        limitable = can_be_limited(method.descriptor)
        streams = method.request_streaming or method.response_streaming
        requests_stream = method.request_streaming

        async def authorize(request: Request, context: Context) -> Message | bytes | None:
            current = current_call()
            grants = policies.current[current.caller.name]
            try:
                if permission not in grants.permissions:
                    current.limited_to = _limit(current, grants, permission, limitable=limitable)
                if streams:
                    stream = _Stream(policies, current, permission, limitable=limitable)
                    context = cast("Context", CheckedContext(context, stream.check))
                    request = stream.each_checked(request) if requests_stream else request
                return await call(request, context)
            except PermissionMissing as error:
                denials.record(path, error)
                raise

        # Not a coroutine function: that would be one coroutine more for every call.
        def authorize_unless_granted(request: Request, context: Context) -> Coroutine[Any, Any, Message | bytes | None]:
            if permission in policies.current[current_call().caller.name].permissions:
                return call(request, context)
            return authorize(request, context)

        # Otherwise an interceptor inside this one can deny a call that has the permission.
        granted_is_enough = not streams and not any(privileged_fields(method.descriptor.input_type))
        return authorize_unless_granted if granted_is_enough else authorize


def _limit(current: CallContext, grants: Grants, permission: str, *, limitable: bool) -> UUID | None:
    """Return the user to whose things a call is limited, None for no limit; raises PermissionMissing."""
    caller = current.caller
    if permission in grants.permissions:
        return None
    if permission not in grants.own:
        raise denied(permission, caller.name)
    if not limitable:
        raise denied(
            permission,
            caller.name,
            "it is granted only for what belongs to one user, and this method cannot be limited to one user",
        )
    if caller.end_user is None:
        raise denied(
            permission, caller.name, "it is granted only for what belongs to one user, and the call is for no user"
        )
    return caller.end_user


class _Stream:
    """One stream, whose caller may lose its permission while it runs."""

    def __init__(self, policies: PolicyFile, current: CallContext, permission: str, *, limitable: bool) -> None:
        self._policies = policies
        self._policy = policies.current
        self._current = current
        self._permission = permission
        self._limitable = limitable

    async def each_checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield the requests of the stream."""
        async for request in requests:
            await self.check(request)
            yield request

    async def check(self, _message: object) -> None:
        """Raise PermissionMissing if the policy in force does not allow what the stream does."""
        policy = self._policies.current
        if policy is self._policy:
            return
        current, self._policy = self._current, policy
        limit = _limit(current, policy[current.caller.name], self._permission, limitable=self._limitable)
        if limit not in {None, current.limited_to}:
            raise denied(
                self._permission,
                current.caller.name,
                "since the policy changed, it is granted only for what belongs to one user; call again",
            )
