"""Limits calls to what belongs to one user: those of callers that have a permission only for that (`:own`).

Three checks make the limit, none of which any method knows of:

- A filter by user that the request leaves empty is set to the user.
- Before the method runs, everything that the request refers to is looked up. If something belongs to another user or
  does not exist, the call is denied, with one answer for both. So no other error can tell that something exists.
- Before the response is sent, and before the unit of work is committed, every message in it must belong to the user.
  This holds if an order is transferred while the call runs.

A method whose requests cannot be limited has no option `own`; the AuthorizationInterceptor denies it.
"""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from service.application.ports.errors import AlreadyAnswered
from service.application.ports.queries import OwnerQueries
from service.domain.errors import PermissionMissing, RequestIdReused
from service.rpc.call_context import current_call, current_unit_of_work
from service.rpc.identity.denials import denied
from service.rpc.identity.own import OwnRequests, References, owners_in
from service.rpc.identity.permissions import authorization_of, can_be_limited
from service.rpc.interceptors.base import Interceptor
from service.rpc.interceptors.checked_context import CheckedContext
from service.rpc.methods import Call, Context, Method, Request


class OwnershipInterceptor(Interceptor):
    """Limits the calls whose context has `limited_to`.

    It runs inside the unit of work, which is rolled back if a response is refused; but looks things up before the
    transaction begins, so it holds no lock.

    Args:
        owners: whose things are; None if no policy limits any call.
    """

    def __init__(self, owners: OwnerQueries | None) -> None:
        self._owners = owners

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its limit, if it can be limited."""
        if self._owners is None or method.descriptor is None or not method.is_ours:
            return call
        if not can_be_limited(method.descriptor):
            return call
        limit = _Limit(method, self._owners)

        async def limit_to_owner(request: Request, context: Context) -> Message | bytes | None:
            user = current_call().limited_to
            if user is None:
                return await call(request, context)
            return await limit.call(call, request, context, user)

        return limit_to_owner


class _Limit:
    """The limit of one method."""

    def __init__(self, method: Method, owners: OwnerQueries) -> None:
        assert method.descriptor is not None  # noqa: S101 - for the type checker
        self._owners = owners
        self._requests = OwnRequests(method.descriptor)
        self._owners_in = owners_in(method.descriptor.output_type)
        self._response_class = GetMessageClass(method.descriptor.output_type)
        self._permission = authorization_of(method.descriptor).permission

    async def call(self, call: Call, request: Request, context: Context, user: UUID) -> Message | bytes | None:
        self._requests.narrow(request, str(user))
        references = self._requests.references(request)

        async def check(response: Message | bytes) -> None:
            await self._require_own_response(response, references, user)

        if not await self._are_own(references, user):
            await _begin_if_repeatable(request, check)
            raise self._denied(user)
        try:
            response = await call(request, cast("Context", CheckedContext(context, check)))
        except AlreadyAnswered as answer:
            await check(answer.response)
            raise
        if response is not None:
            await check(response)
        return response

    async def _are_own(self, references: References, user: UUID) -> bool:
        """Return whether everything exists and belongs to the user; False if nothing is named."""
        if not references or any(named != str(user) for named in references.users):
            return False
        owners = self._owners
        # A request has at most one of these, so this is at most one statement.
        if orders := set(references.orders):
            return _all_are(user, await owners.of_orders([*orders]), len(orders))
        if notes := set(references.notes):
            return _all_are(user, await owners.of_notes([*notes]), len(notes))
        ...
        return True
